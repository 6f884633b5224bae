"""Cases as they were found on disk, and what is to be said about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FILE_ENDING = ".nii.gz"  # of every file of a converted data set


@dataclass(frozen=True)
class Problem:
    """Something that keeps a case from being converted, or, among the notes, that the user should know."""

    case: str  # "" where it is about no single case, such as a folder that cannot be read
    path: Path
    text: str

    def __str__(self) -> str:
        return f"{self.case}: {self.path}: {self.text}" if self.case else f"{self.path}: {self.text}"


@dataclass(frozen=True)
class Case:
    """The files of one case, and what its paths tell about it."""

    name: str  # in nnU-Net's file names
    images: tuple[Path, ...]  # one for each channel, in their order; a 4D file stands there for each of its channels
    label: Path | None  # None where the release gives none
    patient: str
    stratum: str  # "" where nothing is known
    fields: Mapping[str, str] = field(default_factory=dict)  # named groups of the release's patterns, and "case"

    def image_file(self, number: int) -> str:
        """Where channel ``number`` is in the converted data set."""
        part = "imagesTs" if self.label is None else "imagesTr"
        return f"{part}/{self.name}_{number:04d}{FILE_ENDING}"

    @property
    def label_file(self) -> str:
        """Where the label is in the converted data set, if there is one."""
        return f"labelsTr/{self.name}{FILE_ENDING}"


@dataclass
class Found:
    """What lies below the sources: whole cases, the problems of the others, and notes."""

    cases: list[Case] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
