"""What a user may ask of a conversion, and the small files and values of it, checked."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factorizer_nnunet.errors import UserError

DEFAULT_SEED = 42
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
    remap: Mapping[str, Mapping[int, int]] = field(default_factory=dict)  # label values by case; "" for all cases
    patients: Mapping[str, str] | None = None  # patient by case, where the names do not tell
    seed: int = DEFAULT_SEED  # of the folds

    def remap_of(self, case: str) -> dict[int, int]:
        """Label values to be replaced in a case before anything else; what is said for a case wins."""
        own = next((values for name, values in self.remap.items() if name.casefold() == case.casefold()), {})
        return {**self.remap.get("", {}), **own}


def parse_remap(texts: Sequence[str]) -> dict[str, dict[int, int]]:
    """``[CASE:]OLD=NEW`` as given on the command line, by case ("" for all).

    Raises:
        UserError: a text of another form, naming it.
    """
    remap: dict[str, dict[int, int]] = {}
    for text in texts:
        match = _REMAP.fullmatch(text)
        if match is None:
            raise UserError(f"--remap {text}: give OLD=NEW for all cases or CASE:OLD=NEW for one, such as 2=1")
        remap.setdefault(match["case"] or "", {})[int(match["old"])] = int(match["new"])
    return remap


def read_patients(path: Path) -> dict[str, str]:
    """Patient by case from a CSV file with the columns ``case`` and ``patient``.

    Raises:
        UserError: not readable, without these columns, or two patients for one case.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}. Give a CSV file with the columns case,patient") from error
    patients: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        case, patient = (row.get("case") or "").strip(), (row.get("patient") or "").strip()
        if not case or not patient:
            raise UserError(f"{path}, line {number}: no case or no patient; the columns are case,patient")
        if patients.setdefault(case, patient) != patient:
            raise UserError(f"{path}, line {number}: {case} belongs to {patients[case]} above and to {patient} here")
    if not patients:
        raise UserError(f"{path} holds no rows; the columns are case,patient")
    return patients
