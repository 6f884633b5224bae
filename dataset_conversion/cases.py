"""Cases found on disk, and the problems and notes about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FILE_ENDING = ".nii.gz"  # of every file in a converted data set


@dataclass(frozen=True)
class Problem:
    """A reason why a case cannot be converted; as a note, something that the user should know."""

    case: str  # "" if it concerns no single case, such as an unreadable folder
    path: Path
    text: str

    def __str__(self) -> str:
        return f"{self.case}: {self.path}: {self.text}" if self.case else f"{self.path}: {self.text}"


@dataclass(frozen=True)
class SourceCase:
    """The source files of one case, and what their paths say about it."""

    name: str  # in nnU-Net's file names
    # One per channel, in order; a 4D file is repeated for each of its channels, and None stands for an absent one.
    images: tuple[Path | None, ...]
    label: Path | None  # None for an unlabelled case
    patient: str
    stratum: str  # "" if unknown
    fields: Mapping[str, str] = field(default_factory=dict)  # named groups of the release's patterns, and "case"

    @property
    def absent(self) -> tuple[int, ...]:
        """Numbers of the channels that the case lacks."""
        return tuple(number for number, path in enumerate(self.images) if path is None)

    @property
    def files(self) -> tuple[Path, ...]:
        """The images that exist, each once."""
        return tuple(dict.fromkeys(path for path in self.images if path is not None))

    def image_file(self, number: int) -> str:
        """Path of channel ``number`` in the converted data set."""
        part = "imagesTs" if self.label is None else "imagesTr"
        return f"{part}/{self.name}_{number:04d}{FILE_ENDING}"

    @property
    def label_file(self) -> str:
        """Path of the label in the converted data set."""
        return f"labelsTr/{self.name}{FILE_ENDING}"


@dataclass
class FoundCases:
    """Complete cases below the sources, the problems of incomplete ones, and notes."""

    cases: list[SourceCase] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    lacking: int = 0  # images that are missing
    unlabelled: Counter[str] = field(default_factory=Counter)  # cases without label by the folder that says so
