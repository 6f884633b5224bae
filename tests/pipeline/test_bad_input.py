"""Mistakes on the command line are reported in the user's words, and leave nothing behind."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from workspace import BLOBS, PLANS, REGIONS, TRAINER, Workspace, edit_json

from factorizer_nnunet.nnunet import names

pytestmark = pytest.mark.slow


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_command_says_what_is_wrong_and_writes_nothing(
    planned: Workspace, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    def rename(plans: dict) -> None:
        plans["plans_name"] = "indivisiblePlans"
        plans["configurations"]["3d_fullres"]["patch_size"] = [12, 24, 25]

    shutil.copy(planned.plans_file(), planned.plans_file("indivisiblePlans"))
    edit_json(planned.plans_file("indivisiblePlans"), rename)
    shutil.copy(planned.plans_file(), planned.plans_file("foreignPlans", dataset=REGIONS))
    mistakes = {
        "invalid trainer suffix '_20epo': expected any of _<n>epochs": {"trainer": f"{names.TRAINER}_20epo"},
        "patch_size [12, 24, 25] is not divisible by the strides' product 4 on axis 2": {"plans": "indivisiblePlans"},
        f"was made for {BLOBS}, not for the data set": {"plans": "foreignPlans", "dataset": REGIONS},
    }
    before = files_below(planned.preprocessed)
    env = {"check": False, "nnUNet_results": str(tmp_path)}
    runs = {
        message: pool.submit(partial(planned.train, "3d_fullres", 0, **names, **env))
        for message, names in mistakes.items()
    }
    for message, run in runs.items():
        assert run.result().returncode != 0
        assert message in run.result().stderr
    assert files_below(tmp_path) == []
    assert files_below(planned.preprocessed) == before


def test_a_checkpoint_of_other_plans_is_refused_and_kept(folds: Workspace, tmp_path: Path) -> None:
    elsewhere = tmp_path / "preprocessed" / BLOBS
    shutil.copytree(folds.preprocessed / BLOBS, elsewhere)
    edit_json(
        elsewhere / f"{PLANS}.json", lambda plans: plans["configurations"]["3d_fullres"].update(patch_size=[8, 24, 24])
    )
    shutil.copytree(folds.model("3d_fullres"), tmp_path / "results" / BLOBS / folds.model("3d_fullres").name)
    saved = tmp_path / "results" / BLOBS / f"{TRAINER}__{PLANS}__3d_fullres" / "fold_0" / "checkpoint_final.pth"
    before = saved.read_bytes()
    done = folds.train(
        *("3d_fullres", 0, "--c"),
        check=False,
        nnUNet_preprocessed=str(elsewhere.parent),
        nnUNet_results=str(tmp_path / "results"),
    )
    assert done.returncode != 0
    assert f"{saved} was trained with other plans: patch_size was [12, 24, 24], now it is [8, 24, 24]" in done.stderr
    assert saved.read_bytes() == before
