"""Find the cases of a release below any folders, wherever unpacking has put them; copies are told by their content."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from factorizer_nnunet.dataset_conversion.cases import Case, Found, Problem
from factorizer_nnunet.dataset_conversion.layout import (
    Draft,
    Gathered,
    Hit,
    Nifti,
    gather,
    is_nifti,
    rank,
    readable,
    stratum_of,
)
from factorizer_nnunet.dataset_conversion.spec import Channel, Release
from factorizer_nnunet.errors import UserError

_CHUNK_BYTES = 2**20


@dataclass
class Listing:
    """All NIfTI files below the sources, and what kept folders from being listed."""

    sources: tuple[Path, ...]
    files: list[Nifti] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def list_files(sources: Sequence[Path]) -> Listing:
    """List the NIfTI files below ``sources``, each folder once, in the order of their names.

    Names that begin with "." or "_" are passed over: hidden files, and what unpackers leave, such as ``__MACOSX``.
    Links are followed. A folder called like a NIfTI file stands for the one such file in it.

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

    Nothing is read, but for files that are there several times: of equal ones the first is taken.
    """
    gathered = gather(release, listing.files)
    found = Found(problems=list(listing.problems))
    for draft in sorted(gathered.drafts.values(), key=lambda draft: draft.name):
        case = _Maker(release, draft, found).case(channels, gathered.unused)
        if case is not None:
            found.cases.append(case)
    _note_others(release, listing, gathered, found)
    return found


class _Maker:
    """Makes one case of a draft, or says why it cannot."""

    def __init__(self, release: Release, draft: Draft, found: Found) -> None:
        self.release = release
        self.draft = draft
        self.found = found
        self.passed_over: dict[str, list[Nifti]] = {}  # files that others were taken in place of, by the reason

    def case(self, channels: Sequence[Channel], unused: list[Nifti]) -> Case | None:
        problems_before = len(self.found.problems)
        anywhere = [hit for c in self.release.channels for hit in self.draft.hits.get(c.file, ())]
        if not anywhere:
            labels = [hit.file.path for hits in self.draft.hits.values() for hit in hits]
            self._problem(labels[0], "a label without any image of its case")
            return None
        folder = anywhere[0].file.path.parent
        chosen = {channel.file: self._only_hit(channel.file) for channel in channels}  # a 4D file once
        for channel in channels:
            if not self.draft.hits.get(channel.file):
                expected = readable(channel.file, anywhere[0].fields["case"])
                self._problem(folder, f"modality {channel.name} is missing: no {expected} or .nii")
        label = self._label(folder, [hit for hit in chosen.values() if hit], unused)
        self._note_passed_over()
        if len(self.found.problems) > problems_before:
            return None
        images = [hit for channel in channels if (hit := chosen[channel.file])]
        # Channels that are not converted may still hold what names a submission.
        others = [self._ranked(channel.file)[0] for channel in self.release.channels if channel.file in self.draft.hits]
        fields = {name: value for hit in (*others, *images) for name, value in hit.fields.items()}
        return Case(
            name=self.draft.name,
            images=tuple(hit.file.path for hit in images),
            label=label,
            patient=self.release.patient_of(self.draft.name),
            stratum=stratum_of(self.release, images[0].file.shown),
            fields=fields,
        )

    def _label(self, folder: Path, images: Sequence[Hit], unused: list[Nifti]) -> Path | None:
        pattern = next((text for text in self.release.label if text in self.draft.hits), None)
        if pattern is not None:
            hit = self._only_hit(pattern)
            if hit and self.draft.unlabelled:
                self._note(hit.file.path, "lies where cases have no label, but is one: the case is taken for training")
            return hit.file.path if hit else None
        if self.draft.unlabelled:
            return None
        leftover: list[Nifti] = []
        if self.release.leftover_label:
            folders = {hit.file.path.parent for hit in images}
            leftover = [file for file in unused if file.path.parent in folders]
            if len(leftover) == 1:
                self._note(leftover[0].path, "taken as the label: the only file of the case that is no modality")
                unused.remove(leftover[0])
                return leftover[0].path
        if self.release.labels_optional:
            self._note(folder, "has no label and is taken as an unlabelled case")
            return None
        expected = readable(self.release.label[0], images[0].fields["case"] if images else self.draft.name)
        which = f"; which of {', '.join(file.path.name for file in leftover)} it is cannot be told" if leftover else ""
        self._problem(folder, f"label is missing: no {expected} or .nii{which}")
        return None

    def _only_hit(self, pattern: str) -> Hit | None:
        """The one file to take; a problem if several differ."""
        hits = self._ranked(pattern)
        if not hits:
            return None
        best = [hit for hit in hits if rank(self.release, hit.file.shown) == rank(self.release, hits[0].file.shown)]
        self._pass_over("a corrected file is taken in place of it", hits[len(best) :])
        first, *copies = best
        try:
            digest = _digest(first.file.path) if copies else ""
            differing = [copy for copy in copies if _digest(copy.file.path) != digest]
        except OSError as error:
            self._problem(first.file.path, f"is there {len(best)} times, and cannot be compared: {error}")
            return None
        if differing:
            others = ", ".join(str(hit.file.path) for hit in differing)
            self._problem(first.file.path, f"differs from {others}: keep the right one, or give its folder only")
            return None
        self._pass_over("an equal copy of a file that is taken", copies)
        return first

    def _ranked(self, pattern: str) -> list[Hit]:
        return sorted(self.draft.hits.get(pattern, ()), key=lambda hit: rank(self.release, hit.file.shown))

    def _pass_over(self, why: str, hits: Iterable[Hit]) -> None:
        self.passed_over.setdefault(why, []).extend(hit.file for hit in hits)

    def _note_passed_over(self) -> None:
        """One note a reason: a doubled folder would else fill pages."""
        for why, files in self.passed_over.items():
            if files:
                more = f", as {len(files) - 1} more of this case" if len(files) > 1 else ""
                self._note(files[0].path, f"{why}{more}")

    def _problem(self, path: Path, text: str) -> None:
        self.found.problems.append(Problem(self.draft.name, path, text))

    def _note(self, path: Path, text: str) -> None:
        self.found.notes.append(Problem(self.draft.name, path, text))


def _list_below(source: Path, listing: Listing, seen: set[tuple[int, int]]) -> None:
    def unreadable(error: OSError) -> None:
        listing.problems.append(Problem("folder", Path(error.filename), f"cannot be read: {error.strerror}"))

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
        listing.files += [
            Nifti(folder / file, show(folder / file))
            for file in sorted(files)
            if is_nifti(file) and not _is_hidden(file)
        ]


def _list_wrapper(folder: Path, shown: str, listing: Listing) -> None:
    """A folder called X.nii, as some unpackers make it of a file X.nii."""
    try:
        inside = sorted(path for path in folder.iterdir() if is_nifti(path.name) and not _is_hidden(path.name))
    except OSError as error:
        listing.problems.append(Problem("folder", folder, f"cannot be read: {error.strerror}"))
        return
    if len(inside) == 1 and inside[0].is_file():
        listing.files.append(Nifti(inside[0], shown))
    else:
        text = f"is a folder called like a file and holds {len(inside)} NIfTI files instead of one"
        listing.problems.append(Problem("folder", folder, text))


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _digest(path: Path) -> str:
    """Of the content of a file, unpacked if it is a whole gzip file.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with gzip.open(path) as unpacked:
            return _hash(unpacked)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        with path.open("rb") as file:
            return _hash(file)


def _hash(file: BinaryIO | gzip.GzipFile) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _note_others(release: Release, listing: Listing, gathered: Gathered, found: Found) -> None:
    for files, why in (
        (gathered.excluded, f"lie in folders that are no part of {release.title}"),
        (gathered.unused, f"are not needed for {release.title} or have names that it does not know"),
    ):
        if files:
            examples = ", ".join(file.shown for file in files[:3]) + (", …" if len(files) > 3 else "")
            found.notes.append(Problem("other files", listing.sources[0], f"{len(files)} {why}: {examples}"))
