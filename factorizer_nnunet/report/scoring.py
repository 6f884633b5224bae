"""Scores of a result, computed once and kept in a folder of their own for as long as they fit its files."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from factorizer_nnunet import __version__
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.files import read_scores, write_scores
from factorizer_nnunet.evaluation.folder import evaluate_folder
from factorizer_nnunet.evaluation.scores import Files, Scores
from factorizer_nnunet.report.results import Result

_SCORES, _INPUTS = "scores", "inputs.json"  # as evaluate writes them, and what they were computed from
_UNFINISHED = "unfinished"  # scores of single cases, while there are not all


def score(result: Result, kept: Path, scheme: str, num_processes: int) -> Scores:
    """Scores of all cases of a result, read from ``kept`` if they fit, else computed and written there.

    Args:
        result: whose predictions are scored.
        kept: a folder for these scores alone; those that no longer fit are replaced.
        scheme: how to count, see ``evaluation``.
        num_processes: how many cases are scored at a time.

    Raises:
        UserError: files that cannot be scored; scores in ``kept`` that are broken; a folder that is something else.
    """
    inputs = _inputs(result, scheme)
    written, described = kept / _SCORES, kept / _INPUTS
    if kept.exists():
        if not kept.is_dir() or {path.name for path in kept.iterdir()} - {_SCORES, _INPUTS, _UNFINISHED}:
            raise UserError(f"{kept} is there, but not from a report: remove it or choose another --scores FOLDER")
        if described.is_file() and written.is_dir() and described.read_text(encoding="utf-8") == inputs:
            return read_scores(written)
        described.unlink(missing_ok=True)
        shutil.rmtree(written, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="report_") as folder:
        predictions, references = Path(folder) / "predictions", Path(folder) / "references"
        for place in (predictions, references):
            place.mkdir()
        ending = result.dataset_json.get("file_ending", ".nii.gz")
        for case in result.cases:
            (predictions / f"{case.name}{ending}").symlink_to(case.prediction.resolve())
            (references / f"{case.name}{ending}").symlink_to(case.reference.resolve())
        try:
            scores = evaluate_folder(
                predictions, references, result.dataset_json, scheme, num_processes, kept=kept / _UNFINISHED
            )
        except UserError as error:
            raise UserError(_with_real_paths(str(error), result, predictions, references, ending)) from error
    files = {case.name: Files(str(case.reference), str(case.prediction)) for case in result.cases}
    scores = replace(scores, files=files)
    kept.mkdir(parents=True, exist_ok=True)
    write_scores(scores, written)
    write_text_atomically(described, inputs)  # last: without it, scores are not trusted
    shutil.rmtree(kept / _UNFINISHED, ignore_errors=True)
    return scores


def _with_real_paths(text: str, result: Result, predictions: Path, references: Path, ending: str) -> str:
    """A message about the gathered files that names those of the user."""
    for case in result.cases:
        for gathered, path in ((predictions, case.prediction), (references, case.reference)):
            text = text.replace(str(gathered / f"{case.name}{ending}"), str(path))
    return text.replace(str(predictions), str(result.folder))


def _inputs(result: Result, scheme: str) -> str:
    """What the scores depend on, as JSON: every file by its size and time of change."""
    files = {
        case.name: [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in pair]
        for case in result.cases
        for pair in [(case.prediction, case.reference)]
    }
    labels = {key: result.dataset_json.get(key) for key in ("labels", "regions_class_order")}
    content = {"version": __version__, "scheme": scheme, "labels": labels, "files": files}
    return json.dumps(content, indent=1) + "\n"
