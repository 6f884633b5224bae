"""Read strata for balancing the folds from a release's own table, such as the grades of BraTS 2020's cases."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from factorizer_nnunet.dataset_conversion.cases import Problem
from factorizer_nnunet.dataset_conversion.options import read_columns
from factorizer_nnunet.dataset_conversion.spec import Release


def read_strata(release: Release, tables: Sequence[Path]) -> tuple[dict[str, str], list[Problem]]:
    """Return strata in capitals by casefolded case name, and notes on unusable tables.

    Folds can be made without strata, so a bad table does not stop the conversion. ``tables`` are all CSV files below
    the sources; of several copies of the table, the first takes precedence.
    """
    strata: dict[str, str] = {}
    notes: list[Problem] = []
    if release.strata_table is None:
        return strata, notes
    name, *columns = release.strata_table
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
    return strata, notes
