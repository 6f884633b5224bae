"""Free space of disks, and whether a failure was a full disk: libraries report that in words of their own."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

# With less than this left, whatever failed there most likely failed because of it: torch says "unexpected pos", blosc2
# "Error while creating the NDArray", and many leave no errno.
_NEARLY_NOTHING = 1 << 20
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def existing_parent(path: Path) -> Path:
    """The folder itself, or the closest one above it that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def free_space(folder: Path) -> int:
    """Bytes left for this user on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(existing_parent(folder)).free


def is_disk_full(folder: Path, error: BaseException | None = None) -> bool:
    """Whether a failure to write below ``folder`` was for lack of space: by its errno, or by what is left.

    Args:
        folder: where it was written; it need not exist.
        error: what was raised, if it is known.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return True
        error = error.__cause__ or error.__context__
    status = os.statvfs(existing_parent(folder)) if hasattr(os, "statvfs") else None
    no_inodes = status is not None and status.f_files > 0 and status.f_favail == 0
    return no_inodes or free_space(folder) < _NEARLY_NOTHING
