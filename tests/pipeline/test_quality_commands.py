"""How far to trust a prediction, through the real commands: calibrate, predict --quality --uncertainty, and again."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from blobs import TEST_CASES
from workspace import BLOBS, IN_ONE_PROCESS, ON_CPU, Workspace, assert_predicted

from factorizer_nnunet.nnunet.pass_record import QUALITY_FILES

pytestmark = pytest.mark.slow
MAPS = ("entropy", "disagreement", "probability_background", "probability_rim", "probability_core")


@pytest.fixture
def model(folds: Workspace, tmp_path: Path) -> Path:
    """A copy of both folds of 3d_fullres, so that no other test sees its calibration."""
    source = folds.model("3d_fullres")
    return Path(shutil.copytree(source, tmp_path / BLOBS / source.name))


def test_a_calibrated_model_says_how_far_to_trust_it(folds: Workspace, model: Path, tmp_path: Path) -> None:
    done = folds.run("factorizer-nnunet", "calibrate", "-m", model, *ON_CPU)
    assert "6 validation cases of folds 0, 1 will be predicted" in done.stdout and "no estimate" in done.stdout
    out = tmp_path / "out"
    first = _predict(folds, model, out)
    assert "10 out-of-fold cases" in first and "quality: 2 cases" in first and "trained further" not in first
    assert_predicted(out, folds.unseen, TEST_CASES, {0, 1, 2})
    _assert_assessed(out)
    _assert_maps_on_the_grid(out / "uncertainty", folds.unseen)

    before = _times(out)
    again = _predict(folds, model, out)
    assert "quality: 2 cases" in again and "complete before: 2" in again
    assert _times(out) == before, "nothing was computed again"

    _train_further(model / "fold_1" / "checkpoint_final.pth")
    changed = _predict(folds, model, tmp_path / "changed")
    assert changed.count("fold 1 has been trained further since") == 2, "for estimates and for probabilities"
    assert f"run factorizer-nnunet calibrate -m {model}" in changed
    names = {path.name for path in (tmp_path / "changed" / "uncertainty").glob("*.nii.gz")}
    assert names == {f"{case}_{name}.nii.gz" for case in TEST_CASES for name in MAPS[:2]}


def _predict(folds: Workspace, model: Path, out: Path) -> str:
    options = ("-f", 0, 1, *ON_CPU, *IN_ONE_PROCESS, "--quality", "--uncertainty")
    return folds.run("factorizer-nnunet", "predict", "-m", model, "-i", folds.unseen, "-o", out, *options).stdout


def _assert_assessed(out: Path) -> None:
    """The tables and the page are about the same cases in the same order; too few cases were calibrated for a Dice."""
    rows = list(csv.DictReader((out / QUALITY_FILES[0]).open()))
    content = json.loads((out / QUALITY_FILES[1]).read_text())
    page = (out / QUALITY_FILES[2]).read_text()
    names = [case["case"] for case in content["cases"]]
    assert sorted(names) == sorted(TEST_CASES) and [row["case"] for row in rows[::2]] == names
    assert [row["region"] for row in rows] == ["rim", "core"] * 2
    doubts = [float(row["doubt"]) for row in rows]
    assert doubts == sorted(doubts, reverse=True)
    for row in rows:
        assert row["dice"] == "" and float(row["volume_low_ml"]) <= float(row["volume_high_ml"])
        known = [float(row[name]) for name in ("agreement", "confidence", "fold_agreement") if row[name]]
        assert all(0 <= value <= 1 for value in known)
    assert any(row["agreement"] for row in rows), "mirrored passes were compared"
    assert content["models"][0]["calibrated"] and "folds 0, 1, calibrated on 6 out-of-fold cases" in page
    assert all(f'id="volumes-{number}"' in page for number in range(2)) and '"disagreement"' in page


def _assert_maps_on_the_grid(maps: Path, images: Path) -> None:
    for case in TEST_CASES:
        image = SimpleITK.ReadImage(str(images / f"{case}_0000.nii.gz"))
        for name in MAPS:
            one = SimpleITK.ReadImage(str(maps / f"{case}_{name}.nii.gz"))
            assert one.GetSize() == image.GetSize()
            for grid in ("GetSpacing", "GetOrigin", "GetDirection"):
                np.testing.assert_allclose(getattr(one, grid)(), getattr(image, grid)(), atol=1e-5)
            values = SimpleITK.GetArrayFromImage(one)
            assert values.min() >= 0 and values.max() <= 1
            assert name == "disagreement" or values.max() > values.min()


def _times(out: Path) -> dict[str, int]:
    """When each file of a case was written: segmentations, maps and records."""
    return {
        str(path.relative_to(out)): path.stat().st_mtime_ns
        for path in out.rglob("*")
        if path.is_file() and path.name.startswith(TEST_CASES)
    }


def _train_further(file: Path) -> None:
    """Change the weights of a checkpoint a little."""
    content = torch.load(file, map_location="cpu", weights_only=False)
    next(iter(content["network_weights"].values())).add_(1e-3)
    torch.save(content, file)
