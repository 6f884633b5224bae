"""What a user may ask of a conversion, and the small files and values of it, checked."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import first_few

_REMAP = re.compile(r"(?:(?P<case>[^:=]+):)?(?P<old>\d+)=(?P<new>\d+)")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of one conversion; the defaults are those of the command line."""

    dataset_id: int
    name: str | None = None  # of the data set; None is made from the release's title
    channels: Sequence[str] | None = None  # None: all that are not optional
    jobs: int = 1
    link: bool = False  # symbolic links to files that stay as they are, instead of copies
    register: bool = True  # channels on grids of their own; without it they are only resampled by their headers
    skip_invalid: bool = False  # leave out cases with problems instead of refusing the whole set
    # By casefolded case name: label values to replace ("" for all cases), and patients where names do not tell.
    remap: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    patients: Mapping[str, str] | None = None
    seed: int = 42  # of the folds

    def remap_of(self, case: str) -> dict[int, int]:
        """Label values to be replaced in a case before anything else; what is said for a case wins."""
        return {**self.remap.get("", {}), **self.remap.get(case.casefold(), {})}

    def patient_of(self, case: str) -> str | None:
        """The patient that the user's list gives for a case, if there is one."""
        return None if self.patients is None else self.patients.get(case.casefold())

    def unknown_cases(self, cases: Iterable[str]) -> Iterator[str]:
        """What was said for cases that are not among ``cases``."""
        known = {case.casefold() for case in cases}
        for option, names in (("--remap", self.remap), ("--patients", self.patients or {})):
            unknown = [name for name in names if name and name not in known]
            if unknown:
                yield f"{option} names {len(unknown)} cases that are not there: {first_few(unknown)}"


def parse_remap(texts: Sequence[str]) -> dict[str, dict[int, int]]:
    """``[CASE:]OLD=NEW`` as given on the command line, by casefolded case ("" for all).

    Raises:
        UserError: a text of another form, naming it.
    """
    remap: dict[str, dict[int, int]] = {}
    for text in texts:
        match = _REMAP.fullmatch(text)
        if match is None:
            raise UserError(f"--remap {text}: give OLD=NEW for all cases or CASE:OLD=NEW for one, such as 2=1")
        remap.setdefault((match["case"] or "").casefold(), {})[int(match["old"])] = int(match["new"])
    return remap


def read_patients(path: Path) -> dict[str, str]:
    """Patient by casefolded case from a CSV file with the columns ``case`` and ``patient``.

    Raises:
        UserError: not readable, without these columns, or two patients for one case.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}. Give a CSV file with the columns case,patient") from error
    columns = list(rows[0]) if rows else []
    if not {"case", "patient"} <= set(columns):
        found = f"the columns {', '.join(map(str, columns))}" if columns else "no rows"
        raise UserError(f"{path} has {found}; its first line must be case,patient, separated by commas")
    patients: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        case, patient = (row["case"] or "").strip(), (row["patient"] or "").strip()
        if not case or not patient:
            raise UserError(f"{path}, line {number}: no case or no patient")
        if patients.setdefault(case.casefold(), patient) != patient:
            raise UserError(
                f"{path}, line {number}: {case} belongs to {patients[case.casefold()]} above and to {patient} here"
            )
    return patients
