"""Scores of a result, computed once and saved for reuse until its files change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from factorizer_nnunet import __version__
from factorizer_nnunet.core.atomic_files import clear_drafts, is_draft, write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.evaluate import evaluate_pairs
from factorizer_nnunet.evaluation.files import SCORE_FILES, read_scores, write_scores
from factorizer_nnunet.evaluation.pairs import CasePair
from factorizer_nnunet.evaluation.schemes import scheme_named
from factorizer_nnunet.evaluation.scores import Scores
from factorizer_nnunet.evaluation.unfinished import stamp_of
from factorizer_nnunet.nnunet.dataset_json import LABELS_KEY, REGIONS_ORDER_KEY
from factorizer_nnunet.report.results import Result

_SCORES, _INPUTS = "scores", "inputs.json"  # files as `evaluate` writes them, and what they were computed from
_UNFINISHED = "unfinished"  # scores of single cases, until all are scored


def score(result: Result, folder: Path, scheme: str, num_processes: int, ignore_geometry: bool = False) -> Scores:
    """Scores of all cases of a result, read from ``folder`` if they are up to date, else computed and saved there.

    Args:
        result: whose predictions to score.
        folder: for the scores of this result only; outdated scores are replaced.
        scheme: how to score, a key of `evaluation.schemes.SCHEMES`.
        num_processes: number of cases scored at the same time.
        ignore_geometry: score files of the same shape even if their voxels lie in different places.

    Raises:
        UserError: files that cannot be scored, damaged scores, or a folder that contains anything else.
    """
    inputs = _inputs(result, scheme, ignore_geometry)
    written, described = folder / _SCORES, folder / _INPUTS
    if folder.exists():
        _check_own(folder)
        if described.is_file() and written.is_dir() and described.read_text(encoding="utf-8") == inputs:
            return read_scores(written)
        described.unlink(missing_ok=True)
        shutil.rmtree(written, ignore_errors=True)
    scores = evaluate_pairs(
        [CasePair(case.name, case.prediction, case.reference) for case in result.cases],
        result.dataset,
        scheme_named(scheme),
        num_processes=num_processes,
        unfinished=folder / _UNFINISHED,
        ignore_geometry=ignore_geometry,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_scores(scores, written)
    write_text_atomically(described, inputs)  # last: without it, scores are not reused
    shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
    return scores


def _check_own(folder: Path) -> None:
    """Check that a folder contains nothing but scores of a report, and remove drafts of reports that were killed.

    Raises:
        UserError: it contains anything else.
    """
    if folder.is_dir():
        clear_drafts(folder)
        expected = {folder: {_SCORES, _INPUTS, _UNFINISHED}, folder / _SCORES: set(SCORE_FILES)}
        found = [path for place in expected if place.is_dir() for path in place.iterdir() if not is_draft(path)]
        if all(path.name in expected[path.parent] for path in found):
            return
    raise UserError(f"{folder} exists, but is not from a report: move it away or choose another --scores FOLDER")


def _inputs(result: Result, scheme: str, ignore_geometry: bool) -> str:
    """Everything that the scores depend on, as JSON."""
    files = {case.name: [stamp_of(case.prediction), stamp_of(case.reference)] for case in result.cases}
    labels = {key: result.dataset.content.get(key) for key in (LABELS_KEY, REGIONS_ORDER_KEY)}
    content = {
        "version": __version__,
        "scheme": scheme,
        "dataset_json": str(result.dataset.path),
        "geometry_ignored": ignore_geometry,
        "labels": labels,
        "files": files,
    }
    return json.dumps(content, indent=1) + "\n"
