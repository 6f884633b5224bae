"""Models are averaged in one pass, with the labels that nnU-Net's ensemble of their probabilities has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from nnunetv2.ensembling.ensemble import ensemble_folders
from tiny_models import CASES, FACTORIZER, STOCK, run_predict, train_with_files, write_cascade, write_image, write_model

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object


def labels(folder: Path, case: str) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / f"{case}.nii.gz")))


def test_the_mean_of_two_models_is_nnunets(root: Path) -> None:
    """One of slices, one of volumes with another spacing."""
    models = [write_model(root, FACTORIZER, "2d"), write_model(root, STOCK, "3d_lowres")]
    for model in models:
        run_predict(root, model, out=root / model.name, use_mirroring=False, save_probabilities=True)
    (root / "nnunets").mkdir()
    ensemble_folders([str(root / model.name) for model in models], str(root / "nnunets"), num_processes=1)
    outcome = run_predict(root, models[0], ensemble_with=(models[1],), use_mirroring=False)
    assert (outcome.predicted, outcome.failed) == (list(CASES), {})
    assert not list((root / "out").glob("*.npz"))
    for case in CASES:
        ours, theirs = labels(root / "out", case), labels(root / "nnunets", case)
        assert len(np.unique(ours)) > 1
        parts = [np.load(root / model.name / f"{case}.npz")["probabilities"] for model in models]
        first, second = np.sort(np.mean(parts, axis=0), axis=0)[[-1, -2]]
        decided = first - second > 0.01  # otherwise rounding decides
        np.testing.assert_array_equal(ours[decided], theirs[decided])
        assert decided.mean() > 0.9


def test_what_was_predicted_belongs_to_all_models(root: Path) -> None:
    models = [write_model(root, FACTORIZER, "3d_fullres"), write_model(root, FACTORIZER, "3d_lowres")]
    both = {"ensemble_with": (models[1],), "use_mirroring": False}
    assert run_predict(root, models[0], **both).predicted == list(CASES)
    write_image(root / "images" / "b_0001.nii.gz", 77)
    again = run_predict(root, models[0], **both)
    assert (again.predicted, again.skipped) == (["b"], ["a", "c"])
    with pytest.raises(UserError, match="another model or with other settings. Different: ensemble_with"):
        run_predict(root, models[0], use_mirroring=False)


def test_models_that_cannot_be_averaged(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, other = write_model(root, FACTORIZER, "3d_fullres"), write_model(root, FACTORIZER, "3d_lowres")
    cascade = write_cascade(root)
    with pytest.raises(UserError, match="writes those of one model"):
        run_predict(root, model, ensemble_with=(other,), save_probabilities=True)
    with pytest.raises(UserError, match="name each model once"):
        run_predict(root, model, ensemble_with=(model.parent / "x" / ".." / model.name,))
    with pytest.raises(UserError, match="3d_cascade continues 3d_lowres"):
        run_predict(root, model, ensemble_with=(cascade,))
    with pytest.raises(UserError, match="names 2 folders for 1 cascades"):
        run_predict(root, model, ensemble_with=(cascade,), previous_stages=(root, root))
    content = load_json_object(other / "dataset.json", "")
    (other / "dataset.json").write_text(json.dumps({**content, "labels": {**content["labels"], "core": 1, "rim": 2}}))
    train_with_files(other)
    arguments = ["predict", "-m", str(model), "--ensemble-with", str(other), "-f", "0", "-device", "cpu"]
    assert cli.main([*arguments, "-i", str(root / "images"), "-o", str(root / "out")]) == 2
    assert "differ in labels" in capsys.readouterr().err
    assert not (root / "out").exists()
