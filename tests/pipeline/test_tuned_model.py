"""Faster predictions with the real nnU-Net commands: the derived folder and the variables with nnUNetv2_predict."""

from __future__ import annotations

import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from blobs import TEST_CASES
from workspace import (
    IN_ONE_PROCESS,
    ON_CPU,
    PLANS,
    Workspace,
    assert_same_predictions,
    read_probabilities,
)

from factorizer_nnunet.nnunet.inference_settings import ITERATIONS_VARIABLE, SHIFTS_VARIABLE

pytestmark = pytest.mark.slow
FAST = {ITERATIONS_VARIABLE: "1", SHIFTS_VARIABLE: "1"}


def test_derived_folder_and_variables_give_stock_commands_the_same_faster_predictions(
    folds: Workspace, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    options = ("--save_probabilities", *IN_ONE_PROCESS)
    plain = ("3d_fullres", (0,), "--disable_tta", *options)
    without_settings = pool.submit(folds.predict, "not_mirrored", *plain)
    with_variables = pool.submit(folds.predict, "by_variable", *plain, **FAST)
    one = ("--iterations", 1, "--shifts", 1, "--mirroring", "none", "--step-sizes", 0.5)
    tuned = folds.run(
        "factorizer-nnunet",
        *("tune-inference", "-m", folds.model("3d_fullres"), *ON_CPU, *one),
        *("--cases", 3, "--tolerance", 0.99, "--report", tmp_path),
    )
    assert "3 of fold 0, 3 of fold 1" in (tmp_path / "tune_inference.md").read_text()
    derived = folds.model("3d_fullres", plans=f"{PLANS}_fast")
    assert f"-p {PLANS}_fast -step_size 0.5 -f 0 1" in tuned.stdout and str(derived) in tuned.stdout
    with_settings = pool.submit(folds.predict, "fast", "3d_fullres", (0,), *options, plans=f"{PLANS}_fast")
    folds.run(
        "nnUNetv2_predict_from_modelfolder",
        *("-i", folds.unseen, "-o", tmp_path / "out", "-m", derived, "-f", 0, *ON_CPU),
        *("-npp", 1, "-nps", 1, "--save_probabilities"),  # this command wants worker processes
    )
    fast = with_settings.result()
    assert_same_predictions(fast, tmp_path / "out", TEST_CASES)
    assert_same_predictions(fast, with_variables.result(), TEST_CASES)
    before, after = (read_probabilities(folder, TEST_CASES[0]) for folder in (without_settings.result(), fast))
    assert np.abs(after - before).max() > 1e-3, "the settings had no effect"
    folds.run(
        "nnUNetv2_export_model_to_zip",
        *("-d", derived.parent.name, "-c", "3d_fullres", "-f", 0, 1, "-o", tmp_path / "model.zip"),
        *("-tr", derived.name.split("__")[0], "-p", f"{PLANS}_fast"),
    )
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        inside = f"{derived.parent.name}/{derived.name}"
        names = {f"{inside}/plans.json", *(f"{inside}/fold_{fold}/checkpoint_final.pth" for fold in (0, 1))}
        assert names <= set(archive.namelist())
        scores = json.loads(archive.read(f"{inside}/fold_0/validation/summary.json"))
    assert "with the settings it was trained with" in scores["scores_of"]


def test_a_training_with_a_variable_set_ends_before_anything_is_written(folds: Workspace) -> None:
    trainer = "nnUNetTrainerFactorizer_1epochs_1iters"
    done = folds.train("3d_fullres", 0, trainer=trainer, check=False, **FAST)
    assert done.returncode != 0
    assert f"{ITERATIONS_VARIABLE} is set to '1': it is for predictions" in done.stderr
    assert not folds.model("3d_fullres", trainer=trainer).exists()
