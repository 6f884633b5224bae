"""Make one case of the files that were found for it, or say why it cannot be; copies are told by their content."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from factorizer_nnunet.dataset_conversion.cases import Case, Problem
from factorizer_nnunet.dataset_conversion.layout import (
    Draft,
    Hit,
    Nifti,
    rank,
    readable,
    stratum_of,
    unlabelled_folder,
)
from factorizer_nnunet.dataset_conversion.spec import Channel, Release

_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Assembled:
    """A case, None with its problems, and what is to be said about it."""

    case: Case | None
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    unlabelled_folder: str  # the one by whose name the case has no label; "" where it is not for such a name


def assemble(
    release: Release, draft: Draft, channels: Sequence[Channel], strata: Mapping[str, str], unused: list[Nifti]
) -> Assembled:
    """Make a case of ``draft`` with the given ``channels``.

    Nothing is read, but for files that are there several times: of equal ones the first is taken.

    Args:
        release: what the files are to be.
        draft: all files found for the case.
        channels: the chosen ones.
        strata: by casefolded case names, where a table tells them.
        unused: files of no case; one that is taken as the label is removed.
    """
    maker = _Maker(release, draft)
    case = maker.case(channels, strata, unused)
    return Assembled(case, tuple(maker.problems), tuple(maker.notes), maker.unlabelled_folder if case else "")


@dataclass
class _Maker:
    release: Release
    draft: Draft
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    unlabelled_folder: str = ""
    passed_over: dict[str, list[Nifti]] = field(default_factory=dict)  # files not taken, by the reason

    def case(self, channels: Sequence[Channel], strata: Mapping[str, str], unused: list[Nifti]) -> Case | None:
        anywhere = [hit for c in self.release.channels for hit in self.draft.hits.get(c.file, ())]
        if not anywhere:
            labels = [hit.file.path for hits in self.draft.hits.values() for hit in hits]
            self._problem(labels[0], "a label without any image of its case")
            return None
        folder = anywhere[0].file.path.parent
        chosen = {channel.file: self._only_hit(channel.file) for channel in channels}  # a 4D file once
        for channel in channels:
            if not self.draft.hits.get(channel.file):
                self._problem(folder, _missing(channel, channels, anywhere[0].fields["case"]))
        label = self._label(folder, [hit for hit in chosen.values() if hit], unused)
        self._note_passed_over()
        if self.problems:
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
            stratum=stratum_of(self.release, images[0].file.shown) or strata.get(fields["case"].casefold(), ""),
            fields=fields,
        )

    def _label(self, folder: Path, images: Sequence[Hit], unused: list[Nifti]) -> Path | None:
        present = [text for text in self.release.label if text in self.draft.hits]
        case = images[0].fields["case"] if images else self.draft.name
        usual = readable(self.release.label[0], case)
        if present:
            hit = self._only_hit(present[0])
            if hit and present[0] != self.release.label[0]:
                self._note(hit.file.path, f"taken as the label, as there is no {usual} or .nii")
            if hit and self.draft.unlabelled:
                self._note(hit.file.path, "lies where cases have no label, but is one: the case is taken for training")
            for text in present[1:]:
                self._pass_over("a label with a more usual name is taken in place of it", self.draft.hits[text])
            return hit.file.path if hit else None
        if self.draft.unlabelled:
            self.unlabelled_folder = unlabelled_folder(self.release, images[0].file.shown) if images else ""
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
        which = f"; which of {', '.join(file.path.name for file in leftover)} it is cannot be told" if leftover else ""
        self._problem(folder, f"label is missing: no {usual} or .nii{which}")
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
        self.problems.append(Problem(self.draft.name, path, text))

    def _note(self, path: Path, text: str) -> None:
        self.notes.append(Problem(self.draft.name, path, text))


def _missing(channel: Channel, channels: Sequence[Channel], case: str) -> str:
    """What is missing, and how to do without it: a channel on a grid of its own is one that others go without, too."""
    text = f"modality {channel.name} is missing: no {readable(channel.file, case)} or .nii"
    others = [other.name for other in channels if other is not channel]
    if channel.own_grid and others:
        text += f"; leave it out with --channels {' '.join(others)}"
    return text


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
