"""Results that stand in the way are renamed, never removed: they may be all that is left of days of work."""

from __future__ import annotations

import filecmp
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from factorizer_nnunet.core.atomic_files import atomic_file
from factorizer_nnunet.core.path_names import MAX_BYTES

INCOMPLETE = "incomplete"  # cut off by a kill
OUTDATED = "outdated"  # made from something that has changed since
EDITED = "edited"  # changed by someone else after it was written

_NAME = re.compile(rf".+\.({INCOMPLETE}|{OUTDATED}|{EDITED})-\d+")


def set_aside(path: Path, why: str) -> Path:
    """Rename a file or folder to an unused ``NAME.WHY-1``, ``-2``, … next to it; returns the new path.

    The new ending hides it from nnU-Net, which finds files by their endings.

    Raises:
        OSError: it cannot be renamed.
    """
    target = _unused(path, why)
    path.rename(target)
    return target


def copy_aside(path: Path, why: str) -> Path:
    """As ``set_aside``, but copy a file: for one that is about to be replaced, and must be there until it is.

    If the last copy is the same, that one is returned.

    Raises:
        OSError: it cannot be copied.
    """
    before = None
    for target in _targets(path, why):
        if not os.path.lexists(target):
            break
        before = target
    if before is not None and before.is_file() and filecmp.cmp(before, path, shallow=False):
        return before
    with atomic_file(target) as draft:
        shutil.copy2(path, draft)
    return target


def _unused(path: Path, why: str) -> Path:
    return next(one for one in _targets(path, why) if not os.path.lexists(one))


def _targets(path: Path, why: str) -> Iterator[Path]:
    """``NAME.WHY-1``, ``-2``, … next to a path."""
    name = os.fsdecode(os.fsencode(path.name)[: MAX_BYTES - 32])
    return (path.with_name(f"{name}.{why}-{number}") for number in itertools.count(1))


def is_set_aside(name: str) -> bool:
    """Whether a file or folder has the name of something that was set aside."""
    return _NAME.fullmatch(name) is not None
