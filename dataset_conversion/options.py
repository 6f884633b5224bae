"""Options of a conversion, and how the command line's values and CSV files are read."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.pages.limits import ViewerLimits

_REMAP = re.compile(r"(?:(?P<case>[^:=]+):)?(?P<old>\d+)=(?P<new>\d+)")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of one conversion, with the defaults of the command line."""

    dataset_id: int
    name: str | None = None  # of the data set; None: derived from the release's title
    channels: Sequence[str] | None = None  # None: all of the release
    jobs: int = 1
    link: bool = False  # symbolic links to unchanged files instead of copies
    register: bool = True  # channels on their own grids; otherwise they are only resampled by their headers
    ignore_geometry: bool = False  # files of a case with the same shape are the same voxels, wherever headers put them
    skip_invalid: bool = False  # leave out cases with problems instead of rejecting the set
    allow_missing: bool = False  # keep cases that lack some channels
    # By casefolded case name: label values to replace ("" for all cases), and patients.
    remap: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    patients: Mapping[str, str] | None = None
    seed: int = 42  # of the folds
    viewer_cases: int = ViewerLimits.cases  # whose volumes are stored in the report
    viewer_mb: float = ViewerLimits.mb  # all these volumes together

    def __post_init__(self) -> None:
        """Raises UserError for invalid limits of the viewer."""
        ViewerLimits(self.viewer_cases, self.viewer_mb)

    def remap_of(self, case: str) -> dict[int, int]:
        """Label values to replace in a case; values given for the case override those for all cases."""
        return {**self.remap.get("", {}), **self.remap.get(case.casefold(), {})}

    def patient_of(self, case: str) -> str | None:
        """The patient given for a case, if any."""
        return None if self.patients is None else self.patients.get(case.casefold())

    def unknown_cases(self, cases: Iterable[str]) -> Iterator[str]:
        """Warnings about options for cases that are not among ``cases``."""
        known = {case.casefold() for case in cases}
        for option, names in (("--remap", self.remap), ("--patients", self.patients or {})):
            unknown = [name for name in names if name and name not in known]
            if unknown:
                yield f"{option} names {len(unknown)} cases that do not exist: {first_few(unknown)}"


def parse_remap(texts: Sequence[str]) -> dict[str, dict[int, int]]:
    """Parse ``[CASE:]OLD=NEW`` arguments: label values to replace by casefolded case name ("" for all).

    Raises:
        UserError: an argument does not have this form.
    """
    remap: dict[str, dict[int, int]] = {}
    for text in texts:
        match = _REMAP.fullmatch(text)
        if match is None:
            raise UserError(f"--remap {text}: expected OLD=NEW for all cases or CASE:OLD=NEW for one, such as 2=1")
        remap.setdefault((match["case"] or "").casefold(), {})[int(match["old"])] = int(match["new"])
    return remap


def read_patients(path: Path) -> dict[str, str]:
    """Read the patient of each casefolded case from a CSV file with the columns ``case`` and ``patient``.

    Raises:
        UserError: the file is unreadable, lacks a column, or gives two patients for one case.
    """
    try:
        rows = read_columns(path, ("case", "patient"))
        if not rows:
            raise ValueError("it has no rows")
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}. Give a CSV file with the columns case,patient") from error
    patients: dict[str, str] = {}
    for number, (case, patient) in enumerate(rows, start=2):
        if not case or not patient:
            raise UserError(f"{path}, line {number}: case or patient is missing")
        if patients.setdefault(case.casefold(), patient) != patient:
            raise UserError(
                f"{path}, line {number}: {case} belongs to {patients[case.casefold()]} above and to {patient} here"
            )
    return patients


def read_columns(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Read the named columns of a CSV file, one tuple per row.

    Raises:
        OSError, csv.Error: the file cannot be read.
        ValueError: it is not UTF-8, or lacks a column.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            found = ", ".join(reader.fieldnames or ()) or "none"
            raise ValueError(f"it has no column {' and no column '.join(missing)} (columns found: {found})")
        return [tuple((row[column] or "").strip() for column in columns) for row in reader]
