"""A trained model, from its zip, continued on a data set with regions by the real commands."""

from __future__ import annotations

import json

import pytest
import torch
from workspace import ON_CPU, PLANS, REGIONS, TRAINER, Workspace, checkpoint, logged_epochs

pytestmark = pytest.mark.slow

FINETUNED = "nnUNetFactorizerFinetunedPlans_from501"
# A learning rate that changes no weight, so that the result shows what it started from.
KEPT = "nnUNetTrainerFactorizer_1epochs_1iters_lr1e-30_warmup1_freezeencoder"


def test_a_zip_is_finetuned_on_regions_and_resumed(folds: Workspace) -> None:
    file = folds.root / "model.zip"
    model = ("-d", 501, "-c", "3d_fullres", "-tr", TRAINER, "-p", PLANS)
    folds.run("nnUNetv2_export_model_to_zip", *model, "-f", 0, 1, "-o", file)
    options = ("-tr", "nnUNetTrainerFactorizer_1epochs_1iters", "--learning-rate", "1e-30", "--freeze", "encoder")
    command = ("finetune", "--from", file, "-d", 502, "-f", 0, *options, "--map", "rim=whole", "-np", 1, *ON_CPU)

    folds.run("factorizer-nnunet", *command, "--no-train")
    names = {"trainer": KEPT, "plans": FINETUNED, "dataset": REGIONS}
    fold = folds.model("3d_fullres", **names) / "fold_0"
    assert checkpoint(fold, "checkpoint_latest.pth")["current_epoch"] == 0
    done = folds.run("factorizer-nnunet", *command, nnUNet_n_proc_DA="0")
    assert logged_epochs(fold) == [0] and (fold / "validation" / "summary.json").is_file()
    assert "Next, predict:" in done.stdout

    source = checkpoint(folds.model("3d_fullres") / "fold_0")["network_weights"]
    trained = checkpoint(fold)["network_weights"]
    for name, value in trained.items():
        old = source[name]
        # Labels became regions: whole from rim and core from core, against the background.
        expected = old[1:] - old[0] if ".seg_layers." in name else old
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6, msg=name)
    plans = json.loads(folds.plans_file(FINETUNED, REGIONS).read_text())
    assert plans["finetuned_from"]["labels"] == {"whole": "rim", "core": "core"}

    written = (fold / "checkpoint_final.pth").stat().st_mtime_ns
    again = folds.run("factorizer-nnunet", *command)
    assert "fold 0 is done" in again.stdout
    assert (fold / "checkpoint_final.pth").stat().st_mtime_ns == written
