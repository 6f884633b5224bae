"""The review list: findings as a table to fill in, and a record with all that applying it needs.

The table is edited in spreadsheets, which change separators, encodings, and names of cases such as 007 or 3-4. So only
the columns ``finding``, whose keys no spreadsheet changes, and ``decision`` are read back.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.csv_files import csv_text
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Stamp, is_unchanged, stamp_of
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.set_aside import EDITED, copy_aside
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.label_check.check import CheckedCase
from factorizer_nnunet.label_check.finding import CORRECTIONS, Finding, Kind
from factorizer_nnunet.nnunet.dataset_json import DatasetJson

LIST_FILE, RECORD_FILE = "label_check.csv", "label_check.json"
KEEP, CORRECT, BY_HAND = "keep", "correct", "by hand"
DECISIONS = (KEEP, CORRECT, BY_HAND)
_COLUMNS = (
    *("finding", "rank", "case", "kind", "where", "volume_ml", "probability", "score"),
    *("voxel", "if_correct", "decision", "comment"),
)
AGAIN = "Run label-check again; it keeps the decisions on findings that are still the same"


@dataclass(frozen=True)
class Review:
    """What was checked, and what was found.

    Attributes:
        dataset: what label values mean.
        cases: the files of each case by name.
        stamps: of all these files.
        findings: most suspicious first.
        ignore_geometry: whether files were compared wherever their voxels lie.
    """

    dataset: DatasetJson
    cases: Mapping[str, CheckedCase]
    stamps: Mapping[Path, Stamp]
    findings: tuple[Finding, ...]
    ignore_geometry: bool = False

    def changed_files(self, cases: Collection[str]) -> list[Path]:
        """Files of these cases, and labels of all others, that have changed since they were checked, or are gone."""
        files = (
            file for name, case in self.cases.items() for file in (case.files if name in cases else (case.reference,))
        )
        return [file for file in files if not is_unchanged(file, self.stamps[file])]


def review_of(
    dataset: DatasetJson, cases: Sequence[CheckedCase], findings: tuple[Finding, ...], ignore_geometry: bool
) -> Review:
    """A review of files as they are now.

    Raises:
        OSError: a file cannot be read.
    """
    stamps = {file: stamp_of(file) for case in cases for file in case.files}
    return Review(dataset, {case.name: case for case in cases}, stamps, findings, ignore_geometry)


def write_review(review: Review, folder: Path) -> Path | None:
    """Write list and record; decisions of an existing list are taken over.

    Returns:
        The existing list under its new name, if someone has filled it in.

    Raises:
        UserError: the existing list or record cannot be read.
        OSError: a file cannot be written.
    """
    target, kept = folder / LIST_FILE, None
    cells: dict[str, tuple[str, str]] = {}
    if target.exists():
        rows = _rows(target)
        cells = {row["finding"]: (row["decision"], row.get("comment", "")) for row in rows}
        if any(decision or comment for decision, comment in cells.values()):
            kept = copy_aside(target, EDITED)
    table = csv_text(_COLUMNS, [_row(n, one, cells) for n, one in enumerate(review.findings, 1)])
    write_text_atomically(target, table)
    write_text_atomically(folder / RECORD_FILE, json.dumps(_content(review), indent=1))
    return kept


def read_review(folder: Path) -> Review:
    """The review in a folder, without decisions.

    Raises:
        UserError: it cannot be read.
    """
    file = folder / RECORD_FILE
    content = load_json_object(file, AGAIN)
    try:
        dataset = DatasetJson(content["dataset"], Path(content["dataset_json"]))
        cases = {
            name: CheckedCase(name, Path(reference), Path(prediction), Path(probabilities) if probabilities else None)
            for name, (reference, prediction, probabilities) in content["cases"].items()
        }
        stamps = {Path(file): Stamp(*values) for file, values in content["stamps"].items()}
        findings = tuple(_finding(entry) for entry in content["findings"])
        ignore_geometry = bool(content["ignore_geometry"])
        complete = all(one.case in cases for one in findings) and all(
            path in stamps for case in cases.values() for path in case.files
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not a record of label-check. {AGAIN}") from error
    if not complete:
        raise UserError(f"{file} is not complete. {AGAIN}")
    return Review(dataset, cases, stamps, findings, ignore_geometry)


def read_decisions(file: Path, review: Review) -> dict[str, str]:
    """The decision on each finding that has one, by key.

    Raises:
        UserError: the list cannot be read, is of other findings, or has other decisions; all problems in one message.
    """
    known = {one.key for one in review.findings}
    decisions: dict[str, str] = {}
    problems = []
    for number, row in enumerate(_rows(file), 2):
        key, decision = row["finding"], " ".join(row["decision"].lower().split())
        if not key and not decision:
            continue
        if key not in known:
            problems.append(f"line {number}: no finding {key!r} in {RECORD_FILE} next to the list")
        elif decision and decision not in DECISIONS:
            problems.append(f"line {number}: decision {row['decision']!r}, expected {', '.join(DECISIONS)} or nothing")
        elif decision and decisions.setdefault(key, decision) != decision:
            problems.append(f"line {number}: finding {key} has two decisions")
    if problems:
        raise UserError(f"{file} cannot be applied: {first_few(problems, 20)}")
    return decisions


def _rows(file: Path) -> list[dict[str, str]]:
    """The rows of a list as a spreadsheet may have saved it."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    encodings = ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252", "latin-1")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise UserError(f"{file} is not text. Save it as CSV")
    for separator in ",;\t":
        try:
            reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            rows = list(reader)
        except csv.Error:
            continue
        if rows and {"finding", "decision"} <= rows[0].keys():
            return [
                {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)} for row in rows
            ]
    if text.strip().startswith("finding") and len(text.strip().splitlines()) == 1:
        return []
    raise UserError(f"{file} has no columns 'finding' and 'decision'. Save the list of label-check as CSV")


def _row(rank: int, one: Finding, cells: Mapping[str, tuple[str, str]]) -> list[str | int | float]:
    decision, comment = cells.get(one.key, ("", ""))
    numbers = [round(one.volume_ml, 4), round(one.probability, 3), round(one.score, 3)]
    voxel = " ".join(map(str, one.centre))
    row: list[str | int | float] = [one.key, rank, one.case, one.kind.value, one.where, *numbers]
    return [*row, voxel, CORRECTIONS[one.kind], decision, comment.removeprefix("'")]


def _content(review: Review) -> dict[str, Any]:
    return {
        "dataset_json": str(review.dataset.path),
        "dataset": review.dataset.content,
        "ignore_geometry": review.ignore_geometry,
        "cases": {
            name: [str(one.reference), str(one.prediction), str(one.probabilities) if one.probabilities else None]
            for name, one in review.cases.items()
        },
        "stamps": {str(file): [stamp.size, stamp.modified_ns, stamp.sha256] for file, stamp in review.stamps.items()},
        "findings": [
            {
                "finding": one.key,
                "case": one.case,
                "kind": one.kind.value,
                "where": one.where,
                "volume_ml": one.volume_ml,
                "probability": None if math.isnan(one.probability) else one.probability,
                "evidence": one.evidence,
                "centre": list(one.centre),
                "voxels": one.voxels,
                "score": one.score,
            }
            for one in review.findings
        ],
    }


def _finding(entry: Mapping[str, Any]) -> Finding:
    x, y, z = (int(value) for value in entry["centre"])
    return Finding(
        case=str(entry["case"]),
        kind=Kind(entry["kind"]),
        where=str(entry["where"]),
        volume_ml=float(entry["volume_ml"]),
        probability=math.nan if entry["probability"] is None else float(entry["probability"]),
        evidence=float(entry["evidence"]),
        centre=(x, y, z),
        voxels=int(entry["voxels"]),
        score=float(entry["score"]),
    )
