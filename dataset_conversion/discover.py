"""List the source files, and find the cases of a release among them wherever they were unpacked to."""

from __future__ import annotations

import csv
import errno
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.dataset_conversion.assemble import CaseBuilder
from factorizer_nnunet.dataset_conversion.cases import FoundCases, Problem
from factorizer_nnunet.dataset_conversion.layout import GroupedFiles, NiftiFile, group_by_case, is_nifti
from factorizer_nnunet.dataset_conversion.options import read_columns
from factorizer_nnunet.dataset_conversion.spec import Channel, Release

_EXAMPLES = 3  # names shown in a note
# A broken link with such a file ending did not lead to a case's folder; digits are not a file ending.
_OTHER_FILE = re.compile(r".+\.(?=\w*[a-z])[a-z0-9]{1,5}", re.IGNORECASE)


@dataclass
class SourceListing:
    """All NIfTI files and tables below the sources, and problems with others."""

    sources: tuple[Path, ...]
    files: list[NiftiFile] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)  # CSV files
    wrappers: list[str] = field(default_factory=list)  # folders named like the NIfTI file inside, as shown
    problems: list[Problem] = field(default_factory=list)


def list_files(sources: Sequence[Path]) -> SourceListing:
    """List the NIfTI files below ``sources``, each folder once, in the order of their names.

    Names that start with "." or "_" are skipped: hidden files, and what unpackers leave behind, such as ``__MACOSX``.
    Links are followed. A broken link is a problem, because it may have led to a case, and so is a pipe or device with
    a NIfTI file name. A folder with a NIfTI file name stands for the single NIfTI file inside.

    Raises:
        UserError: a source is not a folder.
    """
    for source in sources:
        if not source.is_dir():
            what = "is a file; unpack it and give the folder" if source.is_file() else "is not a folder"
            raise UserError(f"{source} {what}")
    listing = SourceListing(tuple(Path(os.path.abspath(source)) for source in sources))
    seen: set[tuple[int, int]] = set()
    for source in listing.sources:
        _list_below(source, listing, seen)
    return listing


def find_cases(
    release: Release, listing: SourceListing, channels: Sequence[Channel], allow_missing: bool = False
) -> FoundCases:
    """Find all cases of ``release`` with the given ``channels`` among the listed files, sorted by name.

    With ``allow_missing``, cases may lack channels, but not all that define the grid.
    Only the release's table of strata and duplicate files are read; of identical files the first is used.
    """
    grouped = group_by_case(release, listing.files)
    found = FoundCases(problems=list(listing.problems))
    strata = _read_strata(release, listing.tables, found.notes)
    for files in sorted(grouped.cases.values(), key=lambda files: files.name):
        CaseBuilder(release, files, found, allow_missing).build(channels, strata, grouped.unused)
    _add_notes(release, listing, grouped, found)
    return found


def _list_below(source: Path, listing: SourceListing, seen: set[tuple[int, int]]) -> None:
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


def _list_file(path: Path, show: Callable[[Path], str], listing: SourceListing) -> None:
    """List a file; links that may have led to a NIfTI file or a case's folder are checked."""
    if _is_hidden(path.name):
        return
    nifti = is_nifti(path.name)
    if path.suffix.lower() == ".csv":
        listing.tables += [path] if path.is_file() else []
    elif nifti or (path.is_symlink() and not _OTHER_FILE.fullmatch(path.name)):
        if fault := _fault(path):
            listing.problems.append(Problem("", path, fault))
        elif nifti:
            listing.files.append(NiftiFile(path, show(path)))


def _list_wrapper(folder: Path, shown: str, listing: SourceListing) -> None:
    """List the file in a folder X.nii, which some unpackers create for a file X.nii."""
    try:
        inside = sorted(path for path in folder.iterdir() if is_nifti(path.name) and not _is_hidden(path.name))
    except OSError as error:
        listing.problems.append(Problem("", folder, f"cannot be read: {error.strerror}"))
        return
    if len(inside) != 1:
        text = f"is a folder with a file's name and contains {len(inside)} NIfTI files, expected one"
        listing.problems.append(Problem("", folder, text))
    elif fault := _fault(inside[0]):
        listing.problems.append(Problem("", inside[0], fault))
    else:
        listing.files.append(NiftiFile(inside[0], shown))
        listing.wrappers.append(shown)


def _fault(path: Path) -> str | None:
    """Why a path is not a regular file; opening a pipe would block forever."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if path.is_symlink() and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return f"is a broken link to {os.readlink(path)}"
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a folder, expected a file"
    return None if stat.S_ISREG(mode) else "is a pipe, socket or device, expected a file"


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _read_strata(release: Release, tables: Sequence[Path], notes: list[Problem]) -> dict[str, str]:
    """Strata in capitals by casefolded case name, from the release's own table, such as the grades of BraTS 2020.

    Folds can be made without strata, so a bad table is only noted. Of several copies of the table, the first counts.
    """
    strata: dict[str, str] = {}
    name, *columns = release.strata_table or ("",)
    for table in tables:
        if table.name.casefold() != name.casefold():
            continue
        try:
            rows = read_columns(table, columns)
        except (OSError, ValueError, csv.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            notes.append(Problem("", table, f"cannot be used to balance the folds: {reason}"))
            continue
        for case, stratum in rows:
            if case and stratum:
                strata.setdefault(case.casefold(), stratum.upper())
    return strata


def _add_notes(release: Release, listing: SourceListing, grouped: GroupedFiles, found: FoundCases) -> None:
    """Add notes about the complete set, one per kind: in a mirror they may concern every file."""
    texts = []
    for files, why in (
        (grouped.excluded, f"are in folders that are not part of {release.title}"),
        (grouped.unused, f"are not needed for {release.title} or have unknown names"),
    ):
        if files:
            texts.append(f"{len(files)} {why}: {first_few([file.shown for file in files], _EXAMPLES)}")
    for number, names, text in (
        (len(listing.wrappers), listing.wrappers, "folders with file names, replaced by the single NIfTI file inside"),
        (
            found.unlabelled.total() if release.folders_on_disk else 0,
            sorted(found.unlabelled),
            "cases treated as unlabelled because of a parent folder's name",
        ),
    ):
        if number:
            texts.append(f"{text}: {number}, e.g. {first_few(names, _EXAMPLES)}")
    found.notes += [Problem("", listing.sources[0], text) for text in texts]
