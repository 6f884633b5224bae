"""A model imported from weights of the authors, under the stock commands."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from blobs import TEST_CASES
from upstream_example import CONFIG, upstream_state
from workspace import BLOBS, FROZEN_TRAINER, IN_ONE_PROCESS, Workspace, assert_predicted, checkpoint

from factorizer_nnunet.network import from_upstream

pytestmark = pytest.mark.slow

PLANS = "nnUNetFactorizerUpstreamPlans"


def test_an_imported_model_predicts_and_trains_further(
    planned: Workspace, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    torch.save({"state_dict": {f"net.{k}": v for k, v in upstream_state(CONFIG).items()}}, tmp_path / "net.ckpt")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    spacing = ("--spacing", 1.1, 1.1, 2.4)
    planned.run(
        "factorizer-nnunet",
        "import-upstream",
        tmp_path / "net.ckpt",
        "--config",
        tmp_path / "config.json",
        "-d",
        501,
        *spacing,
    )
    names = {"trainer": "nnUNetTrainerFactorizer", "plans": PLANS}
    source = planned.model("3d_fullres", **names) / "fold_all"
    options = ("--disable_tta", *IN_ONE_PROCESS)
    predicted = pool.submit(planned.predict, "imported", "3d_fullres", ("all",), *options, **names)

    planned.run("nnUNetv2_preprocess", "-d", 501, "-plans_name", PLANS, "-c", "3d_fullres", "-np", 1)
    further = {"trainer": FROZEN_TRAINER, "plans": PLANS}
    planned.train("3d_fullres", 0, "-pretrained_weights", source / "checkpoint_final.pth", **further)
    weights = checkpoint(planned.model("3d_fullres", **further) / "fold_0")["network_weights"]
    expected = from_upstream(CONFIG, upstream_state(CONFIG)).state_dict()
    assert set(weights) == set(expected)
    for name in expected:
        if ".seg_layers." not in name:  # which nnU-Net leaves out
            torch.testing.assert_close(weights[name], expected[name], rtol=0, atol=0, msg=name)

    assert_predicted(predicted.result(), planned.unseen, TEST_CASES, {0, 1, 2})
    assert (planned.preprocessed / BLOBS / f"{PLANS}.json").read_text() == (source.parent / "plans.json").read_text()
