"""Planned data sets, trained folds and predictions, made once for several pipeline tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
    STOPPED_TRAINER,
    TRAINER,
    Workspace,
    add_cascade,
    command_line,
    edit_json,
    shrink_plans,
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
def planned(raw: Workspace, pool: ThreadPoolExecutor) -> Workspace:
    """All data sets, planned and preprocessed by our planner; the plain one by two stock planners, too."""

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

    for done in [pool.submit(plain), pool.submit(others)]:
        done.result()
    for plans in raw.preprocessed.glob("*/*Plans.json"):
        edit_json(plans, shrink_plans)
    return raw


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Runs commands two at a time, in the order of submission: each spends most of its time importing."""
    with ThreadPoolExecutor(2) as executor:
        yield executor
        executor.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def trainings(planned: Workspace, pool: ThreadPoolExecutor) -> dict[str, Future]:
    """Everything that needs only the plans, submitted at once; a test waits for what it needs."""
    jobs = {
        "3d_fullres 0": partial(planned.train, "3d_fullres", 0, "--npz"),
        "3d_fullres 1": partial(planned.train, "3d_fullres", 1, "--npz"),
        "2d 0": partial(planned.train, "2d", 0, "--npz"),
        "2d 1": partial(planned.train, "2d", 1),
        "cascade": partial(_train_and_predict_cascade, planned),
        "interrupted": partial(_train_and_kill_and_continue, planned),
        "stopped": partial(_stop_and_continue_twice, planned),
        "resenc": partial(planned.train, "3d_fullres", 0, plans=RESENC_PLANS),
        "ignored": partial(planned.train, "3d_fullres", 0, dataset=IGNORED),
    }
    return {name: pool.submit(job) for name, job in jobs.items()}


@pytest.fixture(scope="session")
def folds(planned: Workspace, trainings: dict[str, Future]) -> Workspace:
    """Both folds of 3d_fullres and 2d on our plans; fold 1 of 2d without probabilities."""
    for name in ("3d_fullres 0", "3d_fullres 1", "2d 0", "2d 1"):
        trainings[name].result()
    return planned


@pytest.fixture(scope="session")
def after_folds(folds: Workspace, pool: ThreadPoolExecutor) -> dict[str, Future]:
    """Everything that needs the folds, submitted at once; predictions of the unseen cases, with probabilities."""
    plain = ("--save_probabilities", "--disable_tta", *IN_ONE_PROCESS)
    jobs = {
        "mirrored": partial(folds.predict, "mirrored", "3d_fullres", (0, 1), "--save_probabilities", *IN_ONE_PROCESS),
        "slices": partial(folds.predict, "slices", "2d", (0, 1), *plain),
        "single": partial(folds.predict, "single", "3d_fullres", (0,), *plain),
        "best": partial(_validate_and_find_best, folds),
        "regions": partial(_train_regions_from_other_weights, folds),
    }
    return {name: pool.submit(job) for name, job in jobs.items()}


@pytest.fixture(scope="session")
def predictions(after_folds: dict[str, Future]) -> dict[str, Path]:
    """Folders of predictions: both folds of 3d_fullres, mirrored; both folds of 2d; one fold, not mirrored."""
    return {name: after_folds[name].result() for name in ("mirrored", "slices", "single")}


@pytest.fixture(scope="session")
def best(after_folds: dict[str, Future]) -> SimpleNamespace:
    return after_folds["best"].result()


@pytest.fixture(scope="session")
def regions(after_folds: dict[str, Future]) -> SimpleNamespace:
    return after_folds["regions"].result()


@pytest.fixture(scope="session")
def cascade(trainings: dict[str, Future]) -> SimpleNamespace:
    return trainings["cascade"].result()


@pytest.fixture(scope="session")
def interrupted(trainings: dict[str, Future]) -> SimpleNamespace:
    return trainings["interrupted"].result()


@pytest.fixture(scope="session")
def stopped(trainings: dict[str, Future]) -> SimpleNamespace:
    return trainings["stopped"].result()


@pytest.fixture(scope="session")
def resenc(planned: Workspace, trainings: dict[str, Future]) -> Path:
    """A fold trained on the plans of nnU-Net's residual encoder."""
    trainings["resenc"].result()
    return planned.model("3d_fullres", plans=RESENC_PLANS) / "fold_0"


@pytest.fixture(scope="session")
def ignored(planned: Workspace, trainings: dict[str, Future]) -> Path:
    """A fold trained with an ignore label."""
    trainings["ignored"].result()
    return planned.model("3d_fullres", dataset=IGNORED) / "fold_0"


def _train_and_predict_cascade(planned: Workspace) -> SimpleNamespace:
    """Train both stages and predict the unseen cases with each."""
    planned.train("3d_lowres", "all")  # its validation predicts every case for the next stage
    planned.train("3d_cascade_fullres", 0)
    options = ("--disable_tta", *IN_ONE_PROCESS)
    lowres = planned.predict("lowres", "3d_lowres", ("all",), *options)
    fullres = planned.predict("cascade", "3d_cascade_fullres", (0,), "-prev_stage_predictions", lowres, *options)
    return SimpleNamespace(lowres=lowres, fullres=fullres)


def _train_and_kill_and_continue(planned: Workspace) -> SimpleNamespace:
    """Train on stock plans, kill the training after an epoch and resume it with ``--c``."""
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
    planned.run("nnUNetv2_train", *arguments, "--c", **AUGMENT_IN_ONE_PROCESS)
    return SimpleNamespace(fold=fold, at_kill=at_kill, returncode=process.returncode)


def _stop_and_continue_twice(planned: Workspace) -> SimpleNamespace:
    """Train; end all processes by SIGTERM within an epoch, resume, by SIGKILL in the validation, and resume again."""
    arguments = train_arguments("3d_fullres", 0, "--c", trainer=STOPPED_TRAINER)
    fold = planned.model("3d_fullres", trainer=STOPPED_TRAINER) / "fold_0"

    def end(when: Path, number: int) -> subprocess.Popen:
        with open(planned.root / f"ended_by_{number}.txt", "w") as output:
            process = subprocess.Popen(
                command_line("nnUNetv2_train", *arguments),
                env={**planned.env, "FACTORIZER_CHECKPOINT_MINUTES": "0.001"},
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that signals reach its workers, too
            )
            while process.poll() is None and not when.exists():
                time.sleep(0.02)
            os.killpg(process.pid, number)
            process.wait()
        return process

    by_term = end(fold / "checkpoint_latest.pth", signal.SIGTERM)
    saved = sorted(path.name for path in fold.glob("checkpoint*"))
    by_kill = end(fold / "validation", signal.SIGKILL)
    finished = (fold / "validation" / "summary.json").exists()
    planned.run("nnUNetv2_train", *arguments, **AUGMENT_IN_ONE_PROCESS)
    statuses = (by_term.returncode, by_kill.returncode)
    return SimpleNamespace(fold=fold, statuses=statuses, saved=saved, finished=finished)


def _validate_and_find_best(folds: Workspace) -> SimpleNamespace:
    """Let nnU-Net choose among 3d_fullres, 2d and both; list probabilities of a fold before and after ``--val``."""
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


def _train_regions_from_other_weights(folds: Workspace) -> SimpleNamespace:
    """Train a fold with regions from the weights of fold 0 of 3d_fullres, and predict with it."""
    source = folds.model("3d_fullres") / "fold_0"
    names = {"trainer": FROZEN_TRAINER, "dataset": REGIONS}
    folds.train("3d_fullres", 0, "-pretrained_weights", source / "checkpoint_final.pth", **names)
    predicted = folds.predict("regions", "3d_fullres", (0,), "--disable_tta", *IN_ONE_PROCESS, **names)
    fold = folds.model("3d_fullres", trainer=FROZEN_TRAINER, dataset=REGIONS) / "fold_0"
    return SimpleNamespace(source=source, fold=fold, predicted=predicted)
