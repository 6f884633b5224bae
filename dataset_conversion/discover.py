"""Find the cases of a release below any folders, wherever unpacking has put them."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.dataset_conversion.assemble import assemble
from factorizer_nnunet.dataset_conversion.cases import Found, Problem
from factorizer_nnunet.dataset_conversion.layout import Gathered, Nifti, gather, is_nifti
from factorizer_nnunet.dataset_conversion.spec import Channel, Release
from factorizer_nnunet.dataset_conversion.strata import read_strata

_EXAMPLES = 3  # names that a note shows
# A link to nothing with such an ending was none to a case; numbers at the end are not taken for one.
_OTHER_FILE = re.compile(r".+\.(?=\w*[a-z])[a-z0-9]{1,5}", re.IGNORECASE)


@dataclass
class Listing:
    """All NIfTI files and tables below the sources, and what kept others from being listed."""

    sources: tuple[Path, ...]
    files: list[Nifti] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)  # CSV files
    wrappers: list[str] = field(default_factory=list)  # folders called like the NIfTI file in them, as shown
    problems: list[Problem] = field(default_factory=list)


def list_files(sources: Sequence[Path]) -> Listing:
    """List the NIfTI files below ``sources``, each folder once, in the order of their names.

    Names that begin with "." or "_" are passed over: hidden files, and what unpackers leave, such as ``__MACOSX``.
    Links are followed; one to nothing is a problem, as a whole case may have been behind it, and so is a pipe or device
    called like a NIfTI file, which nobody could read. A folder called like one stands for the one such file in it.

    Raises:
        UserError: a source is not a folder.
    """
    for source in sources:
        if not source.is_dir():
            what = "is a file; unpack it and give the folder" if source.is_file() else "is not a folder"
            raise UserError(f"{source} {what}")
    listing = Listing(tuple(Path(os.path.abspath(source)) for source in sources))
    seen: set[tuple[int, int]] = set()
    for source in listing.sources:
        _list_below(source, listing, seen)
    return listing


def find_cases(release: Release, listing: Listing, channels: Sequence[Channel]) -> Found:
    """Find all cases of ``release`` with the given ``channels`` among the listed files, sorted by name.

    Nothing is read, but for the release's table of strata and files that are there several times: of equal ones the
    first is taken.
    """
    gathered = gather(release, listing.files)
    strata, notes = read_strata(release, listing.tables)
    found = Found(problems=list(listing.problems), notes=notes)
    unlabelled: Counter[str] = Counter()
    for draft in sorted(gathered.drafts.values(), key=lambda draft: draft.name):
        assembled = assemble(release, draft, channels, strata, gathered.unused)
        found.problems += assembled.problems
        found.notes += assembled.notes
        if assembled.case is not None:
            found.cases.append(assembled.case)
        if assembled.unlabelled_folder:
            unlabelled[assembled.unlabelled_folder] += 1
    _note_others(release, listing, gathered, unlabelled, found)
    return found


def _list_below(source: Path, listing: Listing, seen: set[tuple[int, int]]) -> None:
    def unreadable(error: OSError) -> None:
        listing.problems.append(Problem("", Path(error.filename), f"cannot be read: {error.strerror}"))

    def show(path: Path) -> str:
        return path.relative_to(source.parent).as_posix()

    for name, subfolders, files in os.walk(source, onerror=unreadable, followlinks=True):
        folder = Path(name)
        try:
            status = folder.stat()
        except OSError as error:
            unreadable(error)
            subfolders.clear()
            continue
        if (status.st_dev, status.st_ino) in seen:  # a link back up, or a source within another one
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(subfolder for subfolder in subfolders if not _is_hidden(subfolder))
        for wrapper in filter(is_nifti, subfolders):
            _list_wrapper(folder / wrapper, show(folder / wrapper), listing)
        subfolders[:] = [subfolder for subfolder in subfolders if not is_nifti(subfolder)]
        for file in sorted(files):
            _list_file(folder / file, show, listing)


def _list_file(path: Path, show: Callable[[Path], str], listing: Listing) -> None:
    """List what is no folder; beside files that are needed, links that may have led to one are looked at."""
    nifti = is_nifti(path.name)
    if _is_hidden(path.name):
        return
    if path.suffix.lower() == ".csv":
        listing.tables += [path] if path.is_file() else []
    elif nifti or (path.is_symlink() and not _OTHER_FILE.fullmatch(path.name)):
        fault = _fault(path)
        if fault:
            listing.problems.append(Problem("", path, fault))
        elif nifti:
            listing.files.append(Nifti(path, show(path)))


def _list_wrapper(folder: Path, shown: str, listing: Listing) -> None:
    """A folder called X.nii, as some unpackers make it of a file X.nii."""
    try:
        inside = sorted(path for path in folder.iterdir() if is_nifti(path.name) and not _is_hidden(path.name))
    except OSError as error:
        listing.problems.append(Problem("", folder, f"cannot be read: {error.strerror}"))
        return
    if len(inside) != 1:
        text = f"is a folder called like a file and holds {len(inside)} NIfTI files instead of one"
        listing.problems.append(Problem("", folder, text))
    elif fault := _fault(inside[0]):
        listing.problems.append(Problem("", inside[0], fault))
    else:
        listing.files.append(Nifti(inside[0], shown))
        listing.wrappers.append(shown)


def _fault(path: Path) -> str | None:
    """Why a path leads to no file that could be read; opening a pipe would wait for ever."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if path.is_symlink() and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return f"is a link to nothing: {os.readlink(path)}"
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a folder where a file is expected"
    return None if stat.S_ISREG(mode) else "is a pipe, socket or device, and no file"


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _note_others(
    release: Release, listing: Listing, gathered: Gathered, unlabelled: Mapping[str, int], found: Found
) -> None:
    """Notes on the set: one for each kind of things, which in a mirror may be as many as its files."""
    where = listing.sources[0]
    for files, why in (
        (gathered.excluded, f"lie in folders that are no part of {release.title}"),
        (gathered.unused, f"are not needed for {release.title} or have names that it does not know"),
    ):
        if files:
            text = f"{len(files)} {why}: {first_few([file.shown for file in files], _EXAMPLES)}"
            found.notes.append(Problem("", where, text))
    if listing.wrappers:
        text = f"folders called like files, taken for the one NIfTI file in them: {len(listing.wrappers)}, such as "
        found.notes.append(Problem("", where, text + first_few(listing.wrappers, _EXAMPLES)))
    if unlabelled:
        text = f"cases taken as unlabelled, by the names of folders above them: {sum(unlabelled.values())} below "
        found.notes.append(Problem("", where, text + first_few(sorted(unlabelled), _EXAMPLES)))
