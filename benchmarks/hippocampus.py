"""Factorizer against nnU-Net's own U-Net on real data, at equal iterations and at equal wall time.

    python -m benchmarks.hippocampus DATA --root WORK

DATA is the Hippocampus data set (Medical Segmentation Decathlon, Task04) in nnU-Net raw layout; WORK gets the three
nnU-Net folders, the logs and the results. Everything runs through the stock nnU-Net commands on the CPU, with the
same plans, preprocessed data and folds for both networks; state is read from disk, so the command continues where
it was stopped. The page and figure go to ``docs/``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks.arguments import benchmark_parser, parse
from benchmarks.hippocampus_report import write_report
from benchmarks.iteration_time import measure_iterations

DATASET = "Dataset004_Hippocampus"
PLANS = "nnUNetPlans"
CONFIGURATION = "3d_fullres"
# nnU-Net then plans patches of 24 x 32 x 20 voxels, batch 2, three stages: what two CPU cores can bear.
MEMORY_TARGET_GB = 0.05
ITERATIONS_PER_EPOCH = 50
OTHER_LEARNING_RATES = ("1e-3", "1e-2")  # tried beside the recipe's own, for the short budget on the first fold
STOCK, OURS = "nnUNetTrainerBenchmarkStock", "nnUNetTrainerBenchmarkFactorizer"


@dataclass(frozen=True)
class Run:
    """One fold of one trainer: a row or part of a row of the table."""

    budget: str  # "short", "long" or "recipe"
    comparison: str  # "nnU-Net", "equal iterations", "equal wall time" or "learning rate …"
    trainer: str
    fold: int

    def folder(self, root: Path) -> Path:
        """Where nnU-Net leaves this fold."""
        name = f"{self.trainer}__{PLANS}__{CONFIGURATION}"
        return root / "results" / DATASET / name / f"fold_{self.fold}"


def trainer_name(base: str, iterations: int) -> str:
    """The trainer of ``base`` for this many iterations, in epochs of ITERATIONS_PER_EPOCH."""
    return f"{base}_{max(1, iterations // ITERATIONS_PER_EPOCH)}epochs_{ITERATIONS_PER_EPOCH}iters"


def planned_runs(short: int, long: int, folds: Sequence[int], time_ratio: float) -> list[Run]:
    """Every run; ``time_ratio`` is how many of our iterations take the time of one of nnU-Net's."""
    runs = []
    for budget, iterations, chosen in (("short", short, folds), ("long", long, folds[:1])):
        trainers = {
            "nnU-Net": trainer_name(STOCK, iterations),
            "equal wall time": trainer_name(OURS, int(iterations * time_ratio)),
            "equal iterations": trainer_name(OURS, iterations),
        }
        runs += [Run(budget, comparison, name, fold) for fold in chosen for comparison, name in trainers.items()]
    for rate in OTHER_LEARNING_RATES:
        runs.append(Run("recipe", f"learning rate {rate}", f"{trainer_name(OURS, short)}_lr{rate}", folds[0]))
    return runs


def environment(root: Path, threads: int) -> dict[str, str]:
    """Environment of the nnU-Net commands."""
    here = Path(__file__).parent
    values = {f"nnUNet_{kind}": str(root / kind) for kind in ("raw", "preprocessed", "results")}
    return {
        **os.environ,
        **values,
        "nnUNet_extTrainer": str(here / "ext_trainer"),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "2",  # export workers after training; each one imports torch
        "OMP_NUM_THREADS": str(threads),
    }


def run_command(arguments: Sequence[str], env: dict[str, str], log: Path) -> None:
    """Run a stock command beside this interpreter; its output goes to ``log``.

    Raises:
        RuntimeError: it failed; naming the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sysconfig.get_path("scripts")) / arguments[0]), *arguments[1:]]
    with log.open("a") as stream:
        status = subprocess.run(command, env=env, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        raise RuntimeError(f"{' '.join(arguments)} ended with status {status}; see {log}")


def prepare(data: Path, root: Path, env: dict[str, str]) -> None:
    """Copy the data set, plan and preprocess it, unless done."""
    raw = root / "raw" / DATASET
    if not raw.exists():
        for kind in ("raw", "preprocessed", "results"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        draft = raw.with_name(raw.name + ".part")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(data, draft, copy_function=shutil.copyfile)
        draft.rename(raw)
    done = root / "preprocessed" / "prepared"
    if not done.exists():
        log = root / "logs" / "prepare.log"
        run_command(["nnUNetv2_extract_fingerprint", "-d", "4", "-np", "2"], env, log)
        plan = ["nnUNetv2_plan_experiment", "-d", "4", "-gpu_memory_target", str(MEMORY_TARGET_GB)]
        run_command([*plan, "-overwrite_plans_name", PLANS], env, log)
        run_command(["nnUNetv2_preprocess", "-d", "4", "-plans_name", PLANS, "-c", CONFIGURATION, "-np", "2"], env, log)
        done.touch()


def train(run: Run, root: Path, env: dict[str, str]) -> None:
    """Train and validate one fold, or continue it, or do nothing if it is finished."""
    folder = run.folder(root)
    if (folder / "validation" / "summary.json").exists():
        return
    command = ["nnUNetv2_train", "4", CONFIGURATION, str(run.fold), "-tr", run.trainer, "-p", PLANS]
    command += ["-device", "cpu", "--npz"]
    if any((folder / f"checkpoint_{kind}.pth").exists() for kind in ("final", "latest", "best")):
        command.append("--c")
    run_command(command, env, root / "logs" / f"{run.trainer}_fold{run.fold}.log")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare, time, train every run that is missing, write the page."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--short", type=int, default=400, help="iterations of the short budget (default 400)")
    parser.add_argument("--long", type=int, default=2000, help="iterations of the long one, first fold (default 2000)")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each training (default 1)")
    options = parse(parser, arguments)
    root = options.root.resolve()
    env = environment(root, options.threads)
    if not options.report_only:
        prepare(options.data, root, env)
    timing = root / "iteration_time.json"
    if options.report_only and not timing.exists():
        sys.exit(f"error: nothing has run in {root} yet")
    known = json.loads(timing.read_text()) if timing.exists() else {}
    if not options.report_only and known.get("threads") != options.threads:
        print("timing iterations of both networks, alternating", flush=True)
        measure_iterations(root / "preprocessed" / DATASET, PLANS, CONFIGURATION, timing, options.threads)
    ratio = json.loads(timing.read_text())["ratio"]
    runs = planned_runs(options.short, options.long, options.folds, ratio)
    if not options.report_only:
        # Runs of equal length are one run in two rows of the table.
        different = list({(run.trainer, run.fold): run for run in runs}.values())
        with ThreadPoolExecutor(options.jobs) as pool, tqdm(total=len(different), desc="folds") as bar:
            for _ in pool.map(lambda run: (train(run, root, env), bar.update()), different):
                pass
        trainers = list(dict.fromkeys(run.trainer for run in runs if run.budget == "short"))
        find = ["nnUNetv2_find_best_configuration", "4", "-p", PLANS, "-c", CONFIGURATION, "-np", "2"]
        folds = [str(fold) for fold in options.folds]
        run_command([*find, "-tr", *trainers, "-f", *folds], env, root / "logs" / "find_best_configuration.log")
    write_report(runs, root, options.docs)


if __name__ == "__main__":
    main()
