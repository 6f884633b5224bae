"""Files and folders read and written so that nobody meets half of one."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

from factorizer_nnunet.core.errors import UserError


@contextlib.contextmanager
def file_written_whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that takes its name if the block succeeds, and is removed otherwise.

    So neither a reader nor a kill ever meets half a file.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    with file_written_whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` that takes this name if the block succeeds, and is removed otherwise.

    Raises:
        OSError: ``path`` is there already and not empty.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(draft, ignore_errors=True)  # of a killed process with the same number, as in containers
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # gone by now if all went well


@contextlib.contextmanager
def held(lock: Path, busy: str) -> Iterator[None]:
    """Hold the file ``lock`` against other processes; the system lets go of it when this one ends, however it ends.

    Raises:
        UserError: another process holds it; the message is ``busy``.
        OSError: the file cannot be made.
    """
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(busy) from error
        yield


def load_json_object(path: Path, mend: str) -> dict:
    """Read a JSON file that must hold an object.

    Raises:
        UserError: not readable, not JSON, or not an object; ends with ``mend``.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. {mend}") from error
    except ValueError as error:  # also wrong bytes
        raise UserError(f"{path} is not valid JSON: {error}. {mend}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object but {type(content).__name__}. {mend}")
    return content


def gzip_damage(path: Path) -> str | None:
    """What is wrong with a gzip file, found by reading it to its checksum; None if nothing."""
    try:
        with gzip.open(path) as stream:
            while stream.read(2**20):
                pass
    except (EOFError, OSError, zlib.error) as error:
        return str(error)
    return None
