"""factorizer-nnunet report on results of nnU-Net's own commands: models, collected folds, their ensemble."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from blobs import CASES
from workspace import BLOBS, EPOCHS, TRAINER, Workspace

pytestmark = pytest.mark.slow


def test_models_and_their_ensemble_are_compared(folds: Workspace, best: SimpleNamespace, tmp_path: Path) -> None:
    assert best.information
    collected = folds.model("2d") / "crossval_results_folds_0_1"
    (ensemble,) = (folds.results / BLOBS / "ensembles").glob("ensemble___*")
    page = tmp_path / "report.html"
    folds.run("factorizer-nnunet", "report", folds.model("3d_fullres"), collected, ensemble, "-o", page)
    text = page.read_text(encoding="utf-8")
    assert f"Cross-validation, {len(CASES)} cases" in text and "Incomplete" not in text
    assert "ensemble of" in text and TRAINER in text and re.search(r"<td>\d\.\d\d million</td>", text)
    unknown = '<td><abbr title="not recorded in the folder of this result">–</abbr></td>'
    assert f'<th scope="row">epochs</th><td>{EPOCHS}</td><td>{EPOCHS}</td>{unknown}' in text
    assert {path.parent.name for path in tmp_path.glob("report_scores/*/scores")} == {
        path.name for path in (tmp_path / "report_scores").iterdir()
    }


def test_an_unfinished_fold_is_not_reported_as_complete(folds: Workspace, tmp_path: Path) -> None:
    model = tmp_path / folds.model("3d_fullres").name
    for name in ("dataset.json", "plans.json", "fold_0"):
        (tmp_path / model.name).mkdir(exist_ok=True)
        (model / name).symlink_to(folds.model("3d_fullres") / name)
    (model / "fold_1").mkdir()
    page = tmp_path / "report.html"
    refused = folds.run("factorizer-nnunet", "report", model, "-o", page, check=False)
    assert refused.returncode == 2 and "fold_1: its validation is not finished" in refused.stderr
    assert not page.exists()
    folds.run("factorizer-nnunet", "report", model, "-o", page, "--partial")
    text = page.read_text(encoding="utf-8")
    assert "Cross-validation, 3 cases" in text and "3 of 6 training cases are validated" in text
