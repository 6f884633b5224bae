"""``factorizer-nnunet run`` through nnU-Net's real commands, over folds that are already trained."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from blobs import TEST_CASES
from workspace import (
    BLOBS,
    EPOCHS,
    PLANS,
    TRAINER,
    Workspace,
    assert_predicted,
    checkpoint,
    read_labels,
)

from factorizer_nnunet.nnunet.pass_record import QUALITY_FILES

pytestmark = pytest.mark.slow


@pytest.fixture
def results(folds: Workspace, tmp_path: Path) -> Path:
    """A copy of the results: both folds of 3d_fullres and 2d, fold 1 of 2d without probabilities."""
    folder = tmp_path / "results"
    for configuration in ("3d_fullres", "2d"):
        model = folds.model(configuration)
        shutil.copytree(model, folder / BLOBS / model.name)
    for file in (folder / BLOBS / f"{TRAINER}__{PLANS}__2d" / "fold_1" / "validation").glob("*.npz"):
        file.unlink()
    return folder


def test_a_run_uses_existing_folds_and_ends_with_predictions(folds: Workspace, results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("-c", "3d_fullres", "2d", "-tr", TRAINER, "-f", 0, 1, "--device", "cpu", "-np", 1, "--output", out)
    command = ("factorizer-nnunet", "run", "-d", 501, *options, "--disable-tta", "--quality")
    done = folds.run(*command, nnUNet_results=str(results))
    assert_predicted(out, folds.unseen, TEST_CASES, {0, 1, 2})
    assert all((out / name).is_file() for name in QUALITY_FILES)
    with (out / QUALITY_FILES[0]).open() as table:
        assert {row["case"] for row in csv.DictReader(table)} == set(TEST_CASES)
    summary = json.loads((results / BLOBS / "factorizer_run" / "summary.json").read_text())
    attempts = {step["name"]: step["attempts"] for step in summary["steps"]}
    assert {step["state"] for step in summary["steps"]} == {"done"}
    trained = {name for name, count in attempts.items() if name.startswith("train.") and count}
    assert trained == {f"train.{TRAINER}__{PLANS}__2d.fold_1"}  # its validation alone
    assert len([model for model in summary["best"]["all"] if model.startswith("ensemble")]) == 1
    fold = results / BLOBS / f"{TRAINER}__{PLANS}__2d" / "fold_1"
    assert checkpoint(fold)["current_epoch"] == EPOCHS
    assert "steps are done" in done.stdout
    _assert_as_by_hand(folds, results, summary, out, tmp_path)


def _assert_as_by_hand(folds: Workspace, results: Path, summary: dict, out: Path, tmp_path: Path) -> None:
    """Run the commands of the summary by hand with other output folders: the segmentations are the same."""
    commands = [
        command.split() for step in summary["steps"] if step["name"] == "predict" for command in step["commands"]
    ]
    folders = []
    for number, command in enumerate(commands):
        folder = tmp_path / f"by_hand_{number}"
        folders.append(folder)
        command[command.index("-o") + 1] = str(folder)
        folds.run(*command, nnUNet_results=str(results))
    step = next(step for step in summary["steps"] if step["name"] == "postprocess")
    (postprocess,) = (command.split() for command in step["commands"])
    postprocess[postprocess.index("-i") + 1] = str(folders[-1])
    postprocess[postprocess.index("-o") + 1] = str(tmp_path / "postprocessed")
    folds.run(*postprocess, nnUNet_results=str(results))
    for case in TEST_CASES:
        by_hand = read_labels(tmp_path / "postprocessed" / f"{case}.nii.gz")
        assert (by_hand == read_labels(out / f"{case}.nii.gz")).all()
