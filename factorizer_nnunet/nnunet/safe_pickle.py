"""nnU-Net's ``.pkl`` files, read without executing code in them.

Unpickling calls whatever a file names. nnU-Net's files need only plain values, arrays and numbers of NumPy, and for
``postprocessing.pkl`` one of its own functions. nnU-Net itself unpickles them without looking, so they are read here
before a command that lets it do so.
"""

from __future__ import annotations

import codecs
import collections
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.regular_files import status_of_regular
from factorizer_nnunet.core.wording import first_few

_make_array = np.zeros(1).__reduce__()[0]
_make_scalar = np.float32(0).__reduce__()[0]
_from_buffer = np.zeros(1).__reduce_ex__(5)[0]
# Names that the pickles of NumPy 1 and 2 use, and Python's own for bytes in old protocols.
_ALLOWED: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _make_array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _make_scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): codecs.encode,
    ("__builtin__", "bytes"): bytes,
}
# The functions of nnU-Net's postprocessing; only their names are read here.
_POSTPROCESSING = "nnunetv2.postprocessing.remove_connected_components"


class _Function:
    """Stands for a function of nnU-Net, which is not called."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == _POSTPROCESSING and name.startswith("remove_") and name.isidentifier():
            return _Function
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _ForeignNameError(f"{module}.{name}") from None


class _ForeignNameError(Exception):
    """A pickle names code that nnU-Net's files do not need."""


class _CutOffError(UserError):
    """A pickle that ends too early or starts wrongly."""


def read_pickle(path: Path) -> Any:
    """Read a pickle of plain values and arrays.

    Raises:
        UserError: it is damaged, or asks for other code.
    """
    try:
        status_of_regular(path)
        with path.open("rb") as stream:
            return _Unpickler(stream).load()
    except _ForeignNameError as error:
        raise UserError(
            f"{path} asks for {error}, which nnU-Net's files do not need; unpickling it would execute code from the "
            "file, so it is refused. Remove it and make it again with the command that wrote it"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror or error}. Correct its permissions, or move it away and make it again"
        ) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        kind = _CutOffError if isinstance(error, EOFError | pickle.UnpicklingError) else UserError
        raise kind(
            f"{path} is damaged ({type(error).__name__}: {' '.join(str(error).split())[:100]}). Make it again with the "
            "command that wrote it"
        ) from error


def check_pickles(paths: Iterable[Path]) -> None:
    """Check that unpickling these files executes nothing. One that is cut off fails in nnU-Net at the same place.

    Raises:
        UserError: some would; the message has the reason of the first and the names of others.
    """
    problems = []
    for path in paths:
        try:
            read_pickle(path)
        except _CutOffError:
            continue
        except UserError as error:
            problems.append((path.name, str(error)))
    if problems:
        also = f". Likewise {first_few([name for name, _ in problems[1:]])}" if problems[1:] else ""
        raise UserError(f"{problems[0][1]}{also}")
