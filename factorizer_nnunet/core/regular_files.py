"""Only regular files are read: opening a named pipe would wait forever."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def status_of_regular(path: Path) -> os.stat_result:
    """The status of a file.

    Raises:
        OSError: it does not exist, or is a folder, a pipe or another special file.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a regular file")
    return status
