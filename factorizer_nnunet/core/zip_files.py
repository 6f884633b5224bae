"""Zip files from outside, unpacked only if every file stays in its folder and all of it stays within a size."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from factorizer_nnunet.core.disk import free_space
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.path_names import component_problem

MAX_FILES = 1000
MAX_BYTES = 32 << 30  # unpacked, of all files together; the weights of five large folds take a tenth of that
_ENCRYPTED = 0x1  # bit of a member's flags


def everything(files: Sequence[str]) -> Collection[str]:
    """Choose all files of a zip."""
    return files


def unpack_zip(
    path: Path, folder: Path, fix: str, choose: Callable[[Sequence[str]], Collection[str]] = everything
) -> None:
    """Unpack a zip file; nothing is written before the names and sizes of all its files have been checked.

    Args:
        path: the zip file.
        folder: an empty one.
        fix: what the user can do about a file that is refused; the last sentence of every error.
        choose: gets the names of all files, returns those to unpack; may raise UserError.

    Raises:
        UserError: it is damaged, too large, has a file that would lie outside of the folder, or cannot be written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for problem in _problems(members):
                raise UserError(f"{path}: {problem}, so it is not unpacked. {fix}")
            chosen = set(choose([member.filename for member in members if not member.is_dir()]))
            members = [member for member in members if member.filename in chosen]
            for problem in _size_problems(members, folder):
                raise UserError(f"{path}: {problem}, so it is not unpacked. {fix}")
            for member in members:
                target = folder / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                # zipfile never gives more bytes than the size checked above, and compares the checksum at the end.
                with archive.open(member) as source, target.open("xb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
    except (
        EOFError,
        FileExistsError,
        NotADirectoryError,
        NotImplementedError,  # a compression that zipfile does not know
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(f"{path} is truncated or damaged ({error}). {fix}") from error
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot unpack {path} to {folder}: {reason}. Fix that and try again") from error


def _problems(members: Sequence[zipfile.ZipInfo]) -> Iterator[str]:
    if len(members) > MAX_FILES:
        yield f"it has {len(members)} files, more than {MAX_FILES}"
    names: set[str] = set()
    for member in members:
        name = member.filename
        parts = name.removesuffix("/").split("/")
        problem = next(filter(None, map(component_problem, parts)), None)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if problem is not None:
            yield f"the name of {name!r} leads out of its folder or is not a plain one"
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            yield f"{name} is a link or a special file"
        elif member.flag_bits & _ENCRYPTED:
            yield f"{name} is encrypted"
        elif name.casefold() in names:
            yield f"it has {name} twice"
        names.add(name.casefold())


def _size_problems(members: Sequence[zipfile.ZipInfo], folder: Path) -> Iterator[str]:
    size = sum(member.file_size for member in members)
    if size > MAX_BYTES:
        yield f"its files have {size / 2**30:.0f} GiB unpacked, more than {MAX_BYTES >> 30} GiB"
    elif size > (free := free_space(folder)):
        yield f"its files have {size / 1e9:.2f} GB unpacked, and the disk of {folder} has {free / 1e9:.2f} GB left"
