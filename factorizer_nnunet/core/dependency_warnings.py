"""Leave out a warning that timm's import of torch gives, in this process, in those that it starts, and in a shell."""

from __future__ import annotations

import os
import warnings

VARIABLE = "PYTHONWARNINGS"
_MESSAGE = "`torch.jit.interface` is deprecated"


def ignore_dependency_warnings() -> None:
    """Leave it out here, and in all processes that are started."""
    warnings.filterwarnings("ignore", _MESSAGE, FutureWarning)
    os.environ[VARIABLE] = value_of_variable(os.environ.get(VARIABLE))


def value_of_variable(current: str | None) -> str:
    """The value of PYTHONWARNINGS that leaves it out, after what ``current`` says."""
    entry = f"ignore:{_MESSAGE}:FutureWarning"
    return ",".join(dict.fromkeys(filter(None, [*(current or "").split(","), entry])))
