"""Files and folders that appear complete or not at all.

Until then they are drafts, ``.NAME.PROCESS.partial``. A killed process leaves its drafts; the next one that writes to
the same place removes them, but never those of a living process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from factorizer_nnunet.core.path_names import MAX_BYTES
from factorizer_nnunet.core.process_identity import has_ended, is_identity, own_identity

_ENDING = ".partial"
_ABANDONED_SECONDS = 7 * 86_400  # a draft of another host that nobody has written to for so long


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a draft next to ``path`` that is renamed to ``path`` if the block succeeds, and removed otherwise.

    So neither a reader nor a kill ever leaves half a file.

    Raises:
        OSError: it cannot be written; names ``path``, which the system leaves out when a disk is full.
    """
    clear_drafts(path.parent, path.name)
    draft = draft_of(path)
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        draft.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` completely or not at all."""
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder next to ``path`` that is renamed to ``path`` if the block succeeds, and removed otherwise.

    Raises:
        OSError: ``path`` exists and is not empty.
    """
    clear_drafts(path.parent, path.name)
    draft = draft_of(path)
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # already renamed if all went well


def draft_of(path: Path) -> Path:
    """The name under which this process writes ``path`` until it is complete."""
    return path.with_name(f".{_short(path.name)}.{own_identity()}{_ENDING}")


def is_draft(path: Path) -> bool:
    """Whether a file or folder is named like a draft, of this or an earlier version."""
    return _owner(path.name) is not None


def clear_drafts(folder: Path, name: str | None = None) -> None:
    """Remove the drafts of processes that have ended, all in ``folder`` or those of the file or folder ``name`` there.

    Drafts of other hosts and containers are removed if nobody has written to them for a week.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            owner = _owner(entry.name)
            if owner is None or (name is not None and entry.name != f".{_short(name)}.{owner}{_ENDING}"):
                continue
            draft, ended = Path(entry.path), has_ended(owner)
            if ended or (ended is None and time.time() - _last_change(draft) > _ABANDONED_SECONDS):
                remove_draft(draft)


def remove_draft(draft: Path) -> None:
    """Remove a draft, file or folder, if it still exists."""
    if draft.is_dir() and not draft.is_symlink():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)


def _owner(name: str) -> str | None:
    """The process in the name of a draft (earlier versions: only its number); None for other names."""
    stem, _, owner = name.removesuffix(_ENDING).rpartition(".")
    is_of_draft = name.startswith(".") and name.endswith(_ENDING) and stem and (is_identity(owner) or owner.isdecimal())
    return owner if is_of_draft else None


def _short(name: str) -> str:
    """The name, or a hash of it where a draft's name would be too long."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= MAX_BYTES - 64 else hashlib.sha256(encoded).hexdigest()


def _last_change(draft: Path) -> float:
    """When a draft or anything in it was last written, in seconds since the epoch; now if that cannot be read."""
    try:
        return max(path.lstat().st_mtime for path in (draft, *draft.rglob("*")))
    except OSError:
        return time.time()
