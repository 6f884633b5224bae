"""A run that is killed at 20 moments must still train every fold in full and predict every case.

    pytest -m exhaustive tests/pipeline/test_killed_run.py -s       # about half an hour

Two configurations by five folds on a tiny data set, on the CPU, with an ensemble and test images. ``factorizer-nnunet
run`` is started, killed with SIGKILL at the next moment of a list, and started again with the same arguments, until the
list is exhausted. Usually all its processes die at once; every fourth time only the runner dies and its commands carry
on alone. Then the run may end, and its results are checked.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from blobs import write_dataset
from kill_moments import EPOCHS, ITERATIONS, Moment, Seen, moments
from kill_verdict import problems_of

from factorizer_nnunet.core.processes import end_marked, script
from factorizer_nnunet.nnunet.environment import create_folders, environment_variables

pytestmark = pytest.mark.exhaustive

DATASET = "Dataset501_Blobs"
TRAINER = f"nnUNetTrainerFactorizer_{EPOCHS}epochs_{ITERATIONS}iters"
CONFIGURATIONS = ("2d", "3d_fullres")
OWNER_VARIABLE = "FACTORIZER_NNUNET_KILL_RUN"  # inherited by every process of the run
SEED = int(os.environ.get("KILL_SEED", "0"))
POLL_SECONDS = 0.002  # a small checkpoint is written in some hundredths of a second


def test_a_run_killed_again_and_again_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    create_folders(tmp_path)
    write_dataset(tmp_path / "nnUNet_raw" / DATASET, {"background": 0, "rim": 1, "core": 2})
    rng = random.Random(SEED)
    kills = []
    for number, moment in enumerate(moments(rng)):
        kills.append(kill_at(tmp_path, moment, rng, runner_alone=number % 4 == 3))
        print(json.dumps(kills[-1]), flush=True)
    assert start(tmp_path).wait() == 0
    assert problems_of(tmp_path, DATASET, TRAINER, CONFIGURATIONS) == []
    assert any(kill["came"] for kill in kills)


def command(root: Path) -> list[str]:
    """The command that is repeated."""
    options = ["-d", "501", "-c", *CONFIGURATIONS, "-tr", TRAINER, "--device", "cpu", "--gpu-memory-target", "0.6"]
    return [script("factorizer-nnunet"), "run", *options, "-np", "1", "--disable-tta", "--output", str(root / "out")]


def environment(root: Path) -> dict[str, str]:
    """nnU-Net's folders below ``root``, and as few worker processes as it allows."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}
    few = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f", OWNER_VARIABLE: str(root)}
    return {**inherited, **environment_variables(root, {}), **few}


def start(root: Path) -> subprocess.Popen:
    """Start the run; what it prints goes to a log."""
    with (root / "run.log").open("ab") as log:
        return subprocess.Popen(
            command(root), env=environment(root), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def kill_at(root: Path, moment: Moment, rng: random.Random, runner_alone: bool) -> dict:
    """Start the run and kill it at the given moment; returns when that was and which processes were killed."""
    process, started, seen = start(root), time.monotonic(), Seen(root)
    while process.poll() is None and not moment.has_come(seen):
        time.sleep(POLL_SECONDS)
    time.sleep(rng.uniform(0, moment.delay_seconds))
    came = process.poll() is None
    killed = 1
    if came:
        process.kill()
    if not runner_alone:
        while count := end_marked(OWNER_VARIABLE, str(root)):  # repeated, since a process may start another meanwhile
            killed += count
    process.wait()
    return {
        "moment": moment.name,
        "came": came,
        "runner_alone": runner_alone,
        "seconds": round(time.monotonic() - started, 1),
        "processes": killed if came else 0,
        "half_written": sorted(path.name for path in root.rglob("*.draft")),
    }
