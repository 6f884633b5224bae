"""A plan template from raw data to a trained fold, with a user's commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from workspace import BLOBS, FROZEN_TRAINER, Workspace, checkpoint

TEMPLATE = {
    "source": "this test",
    "channels": 2,
    "spacing": [2.4, 1.1, 1.0],  # as the data
    "patch_size": [12, 24, 24],
    "batch_size": 2,
    "arch_kwargs": {"features_per_stage": [8, 16], "strides": [[1, 1, 1], [2, 2, 2]]},
}


@pytest.mark.slow
def test_a_template_is_planned_preprocessed_and_trained(planned: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "blobs.json"
    file.write_text(json.dumps(TEMPLATE))
    done = planned.run("factorizer-nnunet", "plan", "-d", 501, "-c", "3d_fullres", "--template", file, "-np", 1)
    plans = "nnUNetFactorizerTemplatePlans_blobs"
    assert done.stdout.rstrip().endswith(f"nnUNetv2_train 501 3d_fullres 0 -tr nnUNetTrainerFactorizer -p {plans}")
    assert list((planned.preprocessed / BLOBS / f"{plans}_3d_fullres").glob("*.b2nd"))
    planned.train("3d_fullres", 0, trainer=FROZEN_TRAINER, plans=plans)
    fold = planned.model("3d_fullres", trainer=FROZEN_TRAINER, plans=plans) / "fold_0"
    weights = checkpoint(fold)["network_weights"]
    assert sum(name.startswith("encoder.stages.") and name.endswith("norm2.weight") for name in weights) == 2
    assert (fold / "validation" / "summary.json").is_file()
