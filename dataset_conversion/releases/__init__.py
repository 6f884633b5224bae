"""Declarations of releases, one module per challenge year. To add a release, define a ``Release`` in one of them.

Facts known only from users, or merely assumed, are marked unconfirmed.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from factorizer_nnunet.dataset_conversion.spec import Release

# Every release that can be converted, by its key: all ``Release`` values in the modules of this package.
RELEASES: dict[str, Release] = {
    value.key: value
    for module in iter_modules(__path__)
    for value in vars(import_module(f"{__name__}.{module.name}")).values()
    if isinstance(value, Release)
}
