"""Read from a release's own table what is balanced over the folds, such as the grade of BraTS 2020's cases."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from factorizer_nnunet.dataset_conversion.cases import Problem
from factorizer_nnunet.dataset_conversion.spec import Release


def read_strata(release: Release, tables: Sequence[Path]) -> tuple[dict[str, str], list[Problem]]:
    """Strata, in capitals, by casefolded case names, and notes on tables that cannot be used.

    Folds are made without strata, too, so a bad table is no reason to refuse a set. ``tables`` are all CSV files below
    the sources; of a table that is there several times, the first says most.
    """
    strata: dict[str, str] = {}
    notes: list[Problem] = []
    if release.strata_table is None:
        return strata, notes
    name, case_column, stratum_column = release.strata_table
    for table in tables:
        if table.name.casefold() != name.casefold():
            continue
        try:
            rows = _read_rows(table, (case_column, stratum_column))
        except (OSError, ValueError, csv.Error) as error:
            what = error.strerror if isinstance(error, OSError) else error
            notes.append(Problem("", table, f"cannot be used to balance the folds: {what}"))
            continue
        for case, stratum in rows:
            if case and stratum:
                strata.setdefault(case.casefold(), stratum.upper())
    return strata, notes


def _read_rows(table: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The cells of ``columns`` in every row; OSError, csv.Error or ValueError if there are none to be read."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"it has no column {' and no column '.join(missing)}")
        return [tuple((row[column] or "").strip() for column in columns) for row in reader]
