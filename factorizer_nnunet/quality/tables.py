"""``quality.csv`` and ``quality.json``: the assessment of all cases, the most doubtful first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.csv_files import csv_text
from factorizer_nnunet.core.json_files import json_or_none, without_nan
from factorizer_nnunet.core.set_aside import EDITED, set_aside
from factorizer_nnunet.quality.assess import CaseQuality, Judge, RegionQuality

TABLE_FILE, CONTENT_FILE = "quality.csv", "quality.json"
_DIGEST = "table_sha256"  # of the table that was written with the content, to notice edits
COLUMNS = (
    *("rank", "case", "doubt", "region", "dice", "dice_low", "dice_high"),
    *("agreement", "confidence", "fold_agreement", "volume_low_ml", "volume_high_ml", "lesions_low", "lesions_high"),
    "flags",
)
_DIGITS = 4


def write_tables(
    cases: Sequence[CaseQuality], judges: Sequence[Judge], folder: Path, failed: Mapping[str, str]
) -> Path | None:
    """Write both files.

    Args:
        cases: the most doubtful first.
        judges: the models.
        folder: of the predictions.
        failed: cases that could not be predicted, with the reason; they have the first lines, without a rank.

    Returns:
        The existing table under its new name, if it is not as it was written.

    Raises:
        OSError: a file cannot be read or written.
    """
    target = folder / TABLE_FILE
    before = json_or_none(folder / CONTENT_FILE)
    digest = before.get(_DIGEST) if isinstance(before, dict) else None
    kept = None
    if target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() != digest:
        kept = set_aside(target, EDITED)
    rows = [["", case, *[""] * (len(COLUMNS) - 3), f"not predicted: {reason}"] for case, reason in failed.items()]
    table = csv_text(COLUMNS, rows + [row for rank, case in enumerate(cases, 1) for row in _rows(rank, case)])
    content = {
        "models": [
            {
                "model": str(judge.model),
                "calibrated": judge.calibration is not None,
                "coverage": None if judge.calibration is None else judge.calibration.coverage,
                "note": "; ".join(judge.notes),
            }
            for judge in judges
        ],
        "not_predicted": dict(failed),
        "cases": [_case(rank, case) for rank, case in enumerate(cases, 1)],
        _DIGEST: hashlib.sha256(table.encode()).hexdigest(),
    }
    write_text_atomically(folder / CONTENT_FILE, json.dumps(without_nan(content), indent=1))
    write_text_atomically(target, table)
    return kept


def _rows(rank: int, case: CaseQuality) -> list[list[str | int | float]]:
    rows = []
    for name, region in case.regions.items():
        found = region.estimate
        estimated = [float("nan")] * 3 if found is None else [found.dice, found.low, found.high]
        values = [*estimated, region.agreement, region.confidence, region.fold_agreement, *region.volumes_ml]
        flags = "; ".join([*region.flags, *case.image.reasons])
        row: list[str | int | float] = [rank, case.case, round(case.doubt, _DIGITS), name]
        rows.append([*row, *(round(value, _DIGITS) for value in values), *region.lesions, flags])
    return rows


def _case(rank: int, case: CaseQuality) -> dict[str, Any]:
    return {
        "rank": rank,
        "case": case.case,
        "doubt": case.doubt,
        "flags": case.flags,
        "image": {
            "deviations": case.image.deviations,
            "reasons": list(case.image.reasons),
            "empty_share": case.image.empty_share,
        },
        "regions": {name: _region(region) for name, region in case.regions.items()},
    }


def _region(region: RegionQuality) -> dict[str, Any]:
    found = region.estimate
    return {
        "dice": None if found is None else found.dice,
        "interval": None if found is None else [found.low, found.high],
        "agreement": region.agreement,
        "confidence": region.confidence,
        "fold_agreement": region.fold_agreement,
        "volumes_ml": list(region.volumes_ml),
        "lesions": list(region.lesions),
        "missed": region.missed,
        "trust": region.trust,
        "doubt": region.doubt,
        "flags": list(region.flags),
    }
