"""Every release that can be converted, by its key: all ``Release`` values in the modules of ``releases``."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from factorizer_nnunet.dataset_conversion import releases
from factorizer_nnunet.dataset_conversion.spec import Release

_MODULES = [import_module(f"{releases.__name__}.{module.name}") for module in iter_modules(releases.__path__)]

RELEASES: dict[str, Release] = {
    value.key: value for module in _MODULES for value in vars(module).values() if isinstance(value, Release)
}
