"""A whole run, killed at 20 moments: every fold must still be trained in full and every case predicted.

    python -m benchmarks.kill_run --root WORK

Two configurations by five folds on a tiny data set, on the CPU, with an ensemble and test images. ``factorizer-nnunet
run`` is started, killed with SIGKILL at the next moment of a list (all its processes at once, and at some moments only
the runner, whose commands then go on alone), and started again with the same words, until the list is through. Then the
run may end, and what it has left is checked. The page goes to ``docs/kill_run.md``, its values beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from benchmarks.blobs import write_dataset
from benchmarks.kill_run_moments import EPOCHS, ITERATIONS, Moment, Seen, moments
from benchmarks.kill_run_page import kill_page
from benchmarks.kill_run_verdict import check_result
from factorizer_nnunet.core.processes import end_marked, script
from factorizer_nnunet.nnunet.environment import create_folders, environment_variables

DATASET = "Dataset501_Blobs"
TRAINER = f"nnUNetTrainerFactorizer_{EPOCHS}epochs_{ITERATIONS}iters"
CONFIGURATIONS = ("2d", "3d_fullres")
OWNER_VARIABLE = "FACTORIZER_NNUNET_KILL_RUN"  # in every process of the run, however deep
_POLL_SECONDS = 0.002  # a small checkpoint is written in some hundredths of a second


def command(root: Path) -> list[str]:
    """The one command that is repeated."""
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
    """Start the run and kill it when the moment has come; says when that was and what died."""
    process, started, seen = start(root), time.monotonic(), Seen(root)
    while process.poll() is None and not moment.has_come(seen):
        time.sleep(_POLL_SECONDS)
    time.sleep(rng.uniform(0, moment.delay_seconds))
    came = process.poll() is None
    killed = 1
    if came:
        process.kill()
    if not runner_alone:
        while count := end_marked(OWNER_VARIABLE, str(root)):  # again, since one may start another meanwhile
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Kill, finish, check, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="a new folder to work in")
    parser.add_argument("--seed", type=int, default=0, help="of moments and delays (default 0)")
    parser.add_argument(
        "--docs", type=Path, default=Path("docs/measured"), help="where the page goes (default %(default)s)"
    )
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    if root.exists() and any(root.iterdir()):
        sys.exit(f"error: {root} is not empty; choose a new folder with --root")
    create_folders(root)
    write_dataset(root / "nnUNet_raw" / DATASET, {"background": 0, "rim": 1, "core": 2})
    rng = random.Random(options.seed)
    began = time.monotonic()
    kills = []
    for number, moment in enumerate(tqdm(moments(rng), desc="kills")):
        kills.append(kill_at(root, moment, rng, runner_alone=number % 4 == 3))
        tqdm.write(json.dumps(kills[-1]))
    last = time.monotonic()
    status = start(root).wait()
    result = {
        "seed": options.seed,
        "kills": kills,
        "status": status,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "minutes_of_the_last_run": round((time.monotonic() - last) / 60, 1),
        **check_result(root, DATASET, TRAINER, CONFIGURATIONS),
    }
    (options.docs / "kill_run.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (options.docs / "kill_run.md").write_text(kill_page(result), encoding="utf-8")
    sys.exit(0 if status == 0 and not result["problems"] else 1)


if __name__ == "__main__":
    main()
