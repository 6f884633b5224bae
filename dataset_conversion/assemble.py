"""Choose the files of one case among those found for it, or report why the case is incomplete."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factorizer_nnunet.dataset_conversion.cases import FoundCases, Problem, SourceCase
from factorizer_nnunet.dataset_conversion.layout import (
    CaseFiles,
    MatchedFile,
    NiftiFile,
    rank,
    readable,
    stratum_of,
    unlabelled_folder,
)
from factorizer_nnunet.dataset_conversion.spec import Channel, Release


@dataclass
class CaseBuilder:
    """Builds one case of ``release`` from ``files`` and adds it, or its problems, to those found.

    Only duplicate files are read: of identical ones the first is used.
    """

    release: Release
    files: CaseFiles
    found: FoundCases
    allow_missing: bool = False  # whether channels may be absent, except for all that define the grid
    _ignored: dict[str, list[NiftiFile]] = field(default_factory=dict)  # files not used, by reason

    def build(self, channels: Sequence[Channel], strata: Mapping[str, str], unused: list[NiftiFile]) -> None:
        """Add the case with the given channels and the stratum of its casefolded name.

        A file of no case that is used as the label is removed from ``unused``.
        """
        num_problems = len(self.found.problems)
        matches = [match for c in self.release.channels for match in self.files.matches.get(c.file, ())]
        if not matches:
            labels = [match.path for found in self.files.matches.values() for match in found]
            self._problem(labels[0], "label without any image of its case")
            return
        folder = matches[0].path.parent
        chosen = {channel.file: self._choose(channel.file) for channel in channels}  # a 4D file once
        self._report_missing(folder, channels, matches[0].fields["case"])
        label = self._label(folder, [match for match in chosen.values() if match], unused)
        self._note_ignored()
        if len(self.found.problems) > num_problems:
            return
        images = [match for channel in channels if (match := chosen[channel.file])]
        # Channels that are not converted may still contain the fields that name a submission.
        others = [self._ranked(c.file)[0] for c in self.release.channels if c.file in self.files.matches]
        fields = {name: value for match in (*others, *images) for name, value in match.fields.items()}
        if label is None and self.files.unlabelled:
            self.found.unlabelled[unlabelled_folder(self.release, images[0].shown)] += 1
        self.found.cases.append(
            SourceCase(
                name=self.files.name,
                images=tuple(match.path if (match := chosen[channel.file]) else None for channel in channels),
                label=label,
                patient=self.release.patient_of(self.files.name),
                stratum=stratum_of(self.release, images[0].shown) or strata.get(fields["case"].casefold(), ""),
                fields=fields,
            )
        )

    def _report_missing(self, folder: Path, channels: Sequence[Channel], case: str) -> None:
        """Add a problem, or a note where channels may be absent, for each channel without a file."""
        missing = [channel for channel in channels if not self.files.matches.get(channel.file)]
        keeps_grid = any(not channel.own_grid for channel in channels if channel not in missing)
        for channel in missing:
            text = _missing(channel, channels, case)
            if self.allow_missing and keeps_grid:
                self._note(folder, text)
            else:
                self._problem(folder, text)
                self.found.lacking += 1

    def _label(self, folder: Path, images: Sequence[MatchedFile], unused: list[NiftiFile]) -> Path | None:
        patterns = [text for text in self.release.label if text in self.files.matches]
        case = images[0].fields["case"] if images else self.files.name
        usual = readable(self.release.label[0], case)
        if patterns:
            return self._label_of(patterns, usual)
        if self.files.unlabelled:
            return None
        candidates: list[NiftiFile] = []
        if self.release.leftover_label:
            folders = {match.path.parent for match in images}
            candidates = [file for file in unused if file.path.parent in folders]
            if len(candidates) == 1:
                self._note(candidates[0].path, "used as the label: the only file of the case that is not a modality")
                unused.remove(candidates[0])
                return candidates[0].path
        if self.release.labels_optional:
            self._note(folder, "has no label and is treated as an unlabelled case")
            return None
        which = f"; it could be any of {', '.join(file.path.name for file in candidates)}" if candidates else ""
        self._problem(folder, f"label is missing: no {usual} or .nii{which}")
        return None

    def _label_of(self, patterns: Sequence[str], usual: str) -> Path | None:
        """The file of the first of several label patterns, in the release's order."""
        label = self._choose(patterns[0])
        for text in patterns[1:]:
            self._ignore("a label with a more usual name is used instead", self.files.matches[text])
        if label is None:
            return None
        if patterns[0] != self.release.label[0]:
            self._note(label.path, f"used as the label, because there is no {usual} or .nii")
        if self.files.unlabelled:
            self._note(label.path, "is a label in a folder for unlabelled cases: the case is used for training")
        return label.path

    def _choose(self, pattern: str) -> MatchedFile | None:
        """The file to use for a pattern, with a problem if several differ."""
        matches = self._ranked(pattern)
        if not matches:
            return None
        lowest = rank(self.release, matches[0].shown)
        best = [match for match in matches if rank(self.release, match.shown) == lowest]
        self._ignore("a corrected file is used instead", matches[len(best) :])
        first, *copies = best
        try:
            content = _content(first.path) if copies else b""
            differing = [copy for copy in copies if _content(copy.path) != content]
        except OSError as error:
            self._problem(first.path, f"exists {len(best)} times, and the copies cannot be compared: {error}")
            return None
        if differing:
            others = ", ".join(str(match.path) for match in differing)
            advice = "keep the right one, or give only its folder; of different cases, give each a name of its own"
            self._problem(first.path, f"differs from {others}: {advice}")
            return None
        self._ignore("an identical copy of a file that is used", copies)
        return first

    def _ranked(self, pattern: str) -> list[MatchedFile]:
        return sorted(self.files.matches.get(pattern, ()), key=lambda match: rank(self.release, match.shown))

    def _ignore(self, reason: str, matches: Iterable[MatchedFile]) -> None:
        self._ignored.setdefault(reason, []).extend(matches)

    def _note_ignored(self) -> None:
        """Add one note per reason: a duplicated folder would otherwise fill pages."""
        for reason, files in self._ignored.items():
            if files:
                more = f" (and for {len(files) - 1} more files of this case)" if len(files) > 1 else ""
                self._note(files[0].path, f"{reason}{more}")

    def _problem(self, path: Path, text: str) -> None:
        self.found.problems.append(Problem(self.files.name, path, text))

    def _note(self, path: Path, text: str) -> None:
        self.found.notes.append(Problem(self.files.name, path, text))


def _missing(channel: Channel, channels: Sequence[Channel], case: str) -> str:
    """Which file is missing, and how to leave the channel out if it is one on its own grid."""
    text = f"modality {channel.name} is missing: no {readable(channel.file, case)} or .nii"
    others = [other.name for other in channels if other is not channel]
    if channel.own_grid and others:
        text += f"; leave it out with --channels {' '.join(others)}"
    return text


def _content(path: Path) -> bytes:
    """Content of a file, uncompressed if it is a complete gzip file; OSError if it cannot be read."""
    content = path.read_bytes()
    try:
        return gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return content
