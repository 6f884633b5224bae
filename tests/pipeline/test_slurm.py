"""The SLURM executor with a real SLURM of one node, started and ended here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import PARTITION, CannotStartError, slurm_cluster
from workspace import AUGMENT_IN_ONE_PROCESS, BLOBS, EPOCHS, PLANS, TRAINER, Workspace, checkpoint

pytestmark = pytest.mark.slow
_PATIENCE_SECONDS = 600


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables by which commands find the cluster."""
    pytest.importorskip("submitit")
    try:
        with slurm_cluster(tmp_path_factory.mktemp("slurm")) as variables:
            yield variables
    except CannotStartError as reason:
        pytest.skip(f"no SLURM: {reason}")


def run(workspace: Workspace, results: Path, cluster: dict[str, str], *options: object) -> subprocess.CompletedProcess:
    """Submit folds of 3d_fullres on the CPU, with their own results folder."""
    results.mkdir(exist_ok=True)
    environment = {**AUGMENT_IN_ONE_PROCESS, **cluster, "nnUNet_results": str(results)}
    arguments = ("-d", 501, "-c", "3d_fullres", "--device", "cpu", "-np", 1, "--executor", "slurm", "--cpus", 1)
    return workspace.run("factorizer-nnunet", "run", *arguments, "--time", 20, *options, check=False, **environment)


def ask(cluster: dict[str, str], *command: str) -> str:
    environment = {**os.environ, **cluster}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


def wait_for_an_empty_queue(cluster: dict[str, str]) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while left := ask(cluster, "squeue", "--noheader", "--format=%i %T %j %r"):
        assert time.monotonic() < end, f"still in the queue:\n{left}"
        time.sleep(0.5)


def test_folds_are_jobs_and_a_preempted_one_resumes(
    planned: Workspace, cluster: dict[str, str], tmp_path: Path
) -> None:
    folds = ("-tr", TRAINER, "-f", 0, 1)
    done = run(planned, tmp_path, cluster, *folds)
    assert "4 jobs submitted" in done.stdout, done.stderr  # two folds, the choice among models, the summary
    assert "nothing to submit" in run(planned, tmp_path, cluster, *folds).stdout
    model = tmp_path / BLOBS / f"{TRAINER}__{PLANS}__3d_fullres"
    queue = ask(cluster, "squeue", "--noheader", "--format=%i %j")
    job = re.search(r"(\d+) \S+fold_0", queue)[1]
    end = time.monotonic() + _PATIENCE_SECONDS
    while not any("Epoch 0" in log.read_text() for log in model.glob("fold_0/training_log_*.txt")):
        assert time.monotonic() < end
        time.sleep(0.05)
    ask(cluster, "scancel", "--signal=USR1", job)
    wait_for_an_empty_queue(cluster)
    assert "Restarts=1" in ask(cluster, "scontrol", "show", "job", job)
    for fold in (0, 1):
        assert checkpoint(model / f"fold_{fold}")["current_epoch"] == EPOCHS
    status = planned.run("factorizer-nnunet", "status", "-d", 501, nnUNet_results=str(tmp_path), **cluster)
    assert "7 of 7 steps done" in status.stdout


def test_a_failed_fold_is_reported_by_the_summary_and_its_job(
    planned: Workspace, cluster: dict[str, str], tmp_path: Path
) -> None:
    trainer = "nnUNetTrainerFactorizer_1epochs_2iters_lr1e30"  # float32 overflows: the loss is not finite
    done = run(planned, tmp_path, cluster, "-tr", trainer, "-f", 0)
    assert "3 jobs submitted" in done.stdout, done.stderr
    wait_for_an_empty_queue(cluster)
    folder = tmp_path / BLOBS / "factorizer_run"
    steps = {step["name"]: step for step in json.loads((folder / "summary.json").read_text())["steps"]}
    fold = steps[f"train.{trainer}__{PLANS}__3d_fullres.fold_0"]
    assert fold["state"] == "failed" and "loss" in fold["why"]
    assert steps["find_best_configuration"]["state"] == "waiting"
    assert any(fold["why"] in log.read_text() for log in (folder / "slurm").glob("*_log.out"))


def test_a_partition_that_does_not_exist(planned: Workspace, cluster: dict[str, str], tmp_path: Path) -> None:
    done = run(planned, tmp_path, cluster, "--partition", "gpus")
    assert done.returncode == 2
    assert f"no partition gpus: this cluster has {PARTITION}" in done.stderr
    assert list(tmp_path.iterdir()) == []
