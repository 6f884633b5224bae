"""What several pipeline tests look at is made once: planned data sets, trained folds, predictions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from blobs import CASES, IGNORE, write_dataset
from workspace import (
    AUGMENT_IN_ONE_PROCESS,
    BLOBS,
    FROZEN_TRAINER,
    IGNORED,
    IN_ONE_PROCESS,
    PLANS,
    REGIONS,
    RESENC_PLANS,
    RESUMED_TRAINER,
    TRAINER,
    Workspace,
    add_cascade,
    command_line,
    edit_json,
    shrink_plans,
    side_by_side,
    train_arguments,
)


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Three data sets of the same images: plain labels, regions, and an ignore label."""
    workspace = Workspace.below(tmp_path_factory.mktemp("pipeline"))
    write_dataset(workspace.raw / BLOBS, {"background": 0, "rim": 1, "core": 2})
    write_dataset(workspace.raw / REGIONS, {"background": 0, "whole": [1, 2], "core": [2]})
    write_dataset(workspace.raw / IGNORED, {"background": 0, "rim": 1, "core": 2, "ignore": IGNORE}, ignore=True)
    return workspace


@pytest.fixture(scope="session")
def planned(raw: Workspace) -> Workspace:
    """All data sets planned and preprocessed: by our planner, and the plain one by two stock planners, too."""

    def plain() -> None:
        one = ("-np", 1)
        raw.run("nnUNetv2_plan_and_preprocess", "-d", 501, "-c", "3d_fullres", "-npfp", 1, *one)
        raw.run("nnUNetv2_plan_experiment", "-d", 501, "-pl", "nnUNetPlannerResEncM")
        raw.run("factorizer-nnunet", "plan", "-d", 501, "--no-preprocess", *one)
        edit_json(raw.plans_file(), add_cascade)
        configurations = ("2d", "3d_fullres", "3d_lowres")
        raw.run("nnUNetv2_preprocess", "-d", 501, "-plans_name", PLANS, "-c", *configurations, "-np", 1, 1, 1)
        folds = [{"train": list(CASES[3:]), "val": list(CASES[:3])}, {"train": list(CASES[:3]), "val": list(CASES[3:])}]
        (raw.preprocessed / BLOBS / "splits_final.json").write_text(json.dumps(folds))

    def others() -> None:
        for dataset in (502, 503):
            raw.run("factorizer-nnunet", "plan", "-d", dataset, "-c", "3d_fullres", "-np", 1)

    side_by_side(plain, others)
    for plans in raw.preprocessed.glob("*/*Plans.json"):
        edit_json(plans, shrink_plans)
    return raw


@pytest.fixture(scope="session")
def folds(planned: Workspace) -> Workspace:
    """Both folds of 3d_fullres and 2d on our plans; fold 1 of 2d without probabilities."""
    side_by_side(
        partial(planned.train, "3d_fullres", 0, "--npz"),
        partial(planned.train, "3d_fullres", 1, "--npz"),
        partial(planned.train, "2d", 0, "--npz"),
        partial(planned.train, "2d", 1),
    )
    return planned


@pytest.fixture(scope="session")
def predictions(folds: Workspace) -> SimpleNamespace:
    """Folders of predicted unseen cases, all with probabilities: both folds of 3d_fullres and 2d, and fold 0 alone."""
    mirrored, slices, single = side_by_side(
        partial(folds.predict, "mirrored", "3d_fullres", (0, 1), "--save_probabilities", "-npp", 1, "-nps", 1),
        partial(folds.predict, "slices", "2d", (0, 1), "--save_probabilities", "--disable_tta", *IN_ONE_PROCESS),
        partial(folds.predict, "single", "3d_fullres", (0,), "--save_probabilities", "--disable_tta", *IN_ONE_PROCESS),
    )
    return SimpleNamespace(mirrored=mirrored, slices=slices, single=single)


@pytest.fixture(scope="session")
def best(folds: Workspace) -> SimpleNamespace:
    """nnU-Net's choice between 3d_fullres, 2d and both; ``revalidated`` tells whether fold 1 of 2d had files before."""
    validation = folds.model("2d") / "fold_1" / "validation"
    before = sorted(path.name for path in validation.glob("*.npz"))
    folds.train("2d", 1, "--val", "--npz")
    after = sorted(path.name for path in validation.glob("*.npz"))
    folds.run(
        "nnUNetv2_find_best_configuration",
        *(501, "-c", "3d_fullres", "2d", "-p", PLANS, "-tr", TRAINER, "-f", 0, 1, "-np", 1),
    )
    information = json.loads((folds.results / BLOBS / "inference_information.json").read_text())
    return SimpleNamespace(information=information, npz_before=before, npz_after=after)


@pytest.fixture(scope="session")
def cascade(planned: Workspace) -> SimpleNamespace:
    """Both stages trained, and both predictions of the unseen cases."""
    planned.train("3d_lowres", "all")  # its validation predicts every case for the next stage
    _, lowres = side_by_side(
        partial(planned.train, "3d_cascade_fullres", 0),
        partial(planned.predict, "lowres", "3d_lowres", ("all",), "--disable_tta", *IN_ONE_PROCESS),
    )
    options = ("-prev_stage_predictions", lowres, "--disable_tta")
    fullres = planned.predict("cascade", "3d_cascade_fullres", (0,), *options, "-npp", 1, "-nps", 1)
    return SimpleNamespace(lowres=lowres, fullres=fullres)


@pytest.fixture(scope="session")
def interrupted(planned: Workspace) -> SimpleNamespace:
    """A training on stock plans that was killed after an epoch and went on with ``--c``."""
    arguments = train_arguments("3d_fullres", 0, trainer=RESUMED_TRAINER, plans="nnUNetPlans")
    fold = planned.model("3d_fullres", trainer=RESUMED_TRAINER, plans="nnUNetPlans") / "fold_0"
    with open(planned.root / "killed.txt", "w") as output:
        process = subprocess.Popen(
            command_line("nnUNetv2_train", *arguments),
            env={**planned.env, **AUGMENT_IN_ONE_PROCESS},
            stdout=output,
            stderr=output,
        )
        while process.poll() is None and not (fold / "checkpoint_latest.pth").exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    at_kill = sorted(os.listdir(fold))
    resumed = planned.run("nnUNetv2_train", *arguments, "--c", **AUGMENT_IN_ONE_PROCESS)
    return SimpleNamespace(fold=fold, at_kill=at_kill, returncode=process.returncode, output=resumed.stdout)


@pytest.fixture(scope="session")
def resenc(planned: Workspace) -> Path:
    """A fold trained on the plans of nnU-Net's residual encoder."""
    planned.train("3d_fullres", 0, plans=RESENC_PLANS)
    return planned.model("3d_fullres", plans=RESENC_PLANS) / "fold_0"


@pytest.fixture(scope="session")
def other_labels(folds: Workspace) -> SimpleNamespace:
    """Predictions of two folds: with regions, from weights of another data set, and with an ignore label."""
    source = folds.model("3d_fullres") / "fold_0" / "checkpoint_final.pth"

    def regions() -> Path:
        names = {"trainer": FROZEN_TRAINER, "dataset": REGIONS}
        folds.train("3d_fullres", 0, "-pretrained_weights", source, **names)
        return folds.predict("regions", "3d_fullres", (0,), "--disable_tta", *IN_ONE_PROCESS, **names)

    def ignored() -> Path:
        folds.train("3d_fullres", 0, dataset=IGNORED)
        return folds.predict("ignored", "3d_fullres", (0,), "--disable_tta", *IN_ONE_PROCESS, dataset=IGNORED)

    predicted_regions, predicted_ignored = side_by_side(regions, ignored)
    return SimpleNamespace(source=source, regions=predicted_regions, ignored=predicted_ignored)
