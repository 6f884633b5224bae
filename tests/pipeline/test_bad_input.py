"""What a user gets wrong on the command line is told in their words, and leaves nothing behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from workspace import BLOBS, PLANS, TRAINER, Workspace, edit_json, side_by_side

pytestmark = pytest.mark.slow


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def with_patch_size(patch_size: list[int]) -> Callable[[dict], None]:
    return lambda plans: plans["configurations"]["3d_fullres"].update(patch_size=patch_size)


def test_the_command_says_what_is_wrong_and_writes_nothing(planned: Workspace, tmp_path: Path) -> None:
    indivisible = planned.plans_file("indivisiblePlans")
    shutil.copy(planned.plans_file(), indivisible)
    edit_json(indivisible, with_patch_size([12, 24, 25]))
    edit_json(indivisible, lambda plans: plans.update(plans_name="indivisiblePlans"))
    mistakes = [
        (
            {"trainer": "nnUNetTrainerFactorizer_20epoch"},
            "trainer suffix '_20epoch' is not understood; valid: _<n>epochs",
        ),
        ({"plans": "indivisiblePlans"}, "patch_size [12, 24, 25] is not divisible by the strides' product 4 on axis 2"),
    ]
    before = files_below(planned.preprocessed)

    def train(names: dict[str, str]) -> object:
        return planned.train("3d_fullres", 0, check=False, nnUNet_results=str(tmp_path), **names)

    for (_, message), done in zip(mistakes, side_by_side(*(lambda n=n: train(n) for n, _ in mistakes)), strict=True):
        assert done.returncode != 0
        assert message in done.stderr
    assert files_below(tmp_path) == []
    assert files_below(planned.preprocessed) == before


def test_a_checkpoint_of_other_plans_is_refused_and_kept(folds: Workspace, tmp_path: Path) -> None:
    elsewhere = tmp_path / "preprocessed" / BLOBS
    shutil.copytree(folds.preprocessed / BLOBS, elsewhere)
    edit_json(elsewhere / f"{PLANS}.json", with_patch_size([8, 24, 24]))
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
