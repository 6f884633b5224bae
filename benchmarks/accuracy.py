"""Compare trainers on a data set: train their folds with nnU-Net's commands and report the Dice.

    python -m benchmarks.accuracy DATA --root WORK --iterations 400
    python -m benchmarks.accuracy DATA --root WORK --trainers nnUNetTrainer_5epochs nnUNetTrainerFactorizer_5epochs

DATA is a data set in nnU-Net's raw layout, such as ``Dataset004_Hippocampus``. By default nnU-Net's own U-Net is
compared with Factorizer at equal iterations and at equal training time. All trainers share plans, preprocessed data and
folds. WORK gets nnU-Net's three folders, logs, ``accuracy.md`` and the report ``accuracy.html``. State is read from
disk: run the command again to continue.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from factorizer_nnunet.core.processes import script
from factorizer_nnunet.nnunet.environment import EXT_TRAINER_VARIABLE, create_folders, environment_variables

PLANS = "nnUNetPlans"
STOCK, OURS = "nnUNetTrainerBenchmarkStock", "nnUNetTrainerBenchmarkFactorizer"  # in benchmarks/ext_trainer
ITERATIONS_PER_EPOCH = 50


@dataclass(frozen=True)
class Comparison:
    """The data set and the folders of a comparison."""

    root: Path
    dataset: str  # DatasetNNN_Name
    configuration: str
    env: Mapping[str, str]  # of nnU-Net's commands

    @property
    def number(self) -> str:
        """The number in the name of the data set."""
        return str(int(self.dataset[7:10]))

    @property
    def preprocessed(self) -> Path:
        """The data set's folder of plans and preprocessed cases."""
        return self.root / "nnUNet_preprocessed" / self.dataset

    def model(self, trainer: str) -> Path:
        """The model folder of a trainer."""
        return self.root / "nnUNet_results" / self.dataset / f"{trainer}__{PLANS}__{self.configuration}"

    def summaries(self, trainer: str) -> list[Path]:
        """``summary.json`` of each fold that a trainer has finished."""
        return list(self.model(trainer).glob("fold_*/validation/summary.json"))

    def run(self, *command: object, log: str) -> None:
        """Run an installed command; its output goes to ``logs/LOG.log``.

        Raises:
            SystemExit: the command failed; the message names the log.
        """
        file = self.root / "logs" / f"{log}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        arguments = [script(str(command[0])), *map(str, command[1:])]
        with file.open("a") as stream:
            status = subprocess.run(arguments, env=self.env, stdout=stream, stderr=stream, check=False).returncode
        if status:
            sys.exit(f"error: {command[0]} ended with status {status}; see {file}")


def trainer_name(base: str, iterations: float) -> str:
    """The trainer of ``base`` for this many iterations, rounded down to epochs of ITERATIONS_PER_EPOCH."""
    return f"{base}_{max(1, int(iterations) // ITERATIONS_PER_EPOCH)}epochs_{ITERATIONS_PER_EPOCH}iters"


def default_trainers(iterations: int, ratio: float) -> dict[str, str]:
    """Titles by trainer; ``ratio`` is how many of our iterations take the time of one of nnU-Net's."""
    compared = {
        "nnU-Net": trainer_name(STOCK, iterations),
        "Factorizer, equal training time": trainer_name(OURS, iterations * ratio),
        "Factorizer, equal iterations": trainer_name(OURS, iterations),
    }
    titles: dict[str, str] = {}
    for title, trainer in compared.items():
        titles.setdefault(trainer, title)  # comparisons of equal length are one model
    return titles


def prepare(comparison: Comparison, data: Path, memory_target_gb: float | None) -> None:
    """Link, plan and preprocess the data set, unless done."""
    create_folders(comparison.root)
    raw = comparison.root / "nnUNet_raw" / comparison.dataset
    if not raw.exists():
        raw.symlink_to(data.resolve(), target_is_directory=True)
    done = comparison.preprocessed / f"prepared_{comparison.configuration}"
    if done.exists():
        return
    number, log = ("-d", comparison.number), "prepare"
    target = (
        () if memory_target_gb is None else ("-gpu_memory_target", memory_target_gb, "-overwrite_plans_name", PLANS)
    )
    comparison.run("nnUNetv2_extract_fingerprint", *number, "-np", 2, log=log)
    comparison.run("nnUNetv2_plan_experiment", *number, *target, log=log)
    chosen = ("-plans_name", PLANS, "-c", comparison.configuration)
    comparison.run("nnUNetv2_preprocess", *number, *chosen, "-np", 2, log=log)
    done.touch()


def train(comparison: Comparison, trainer: str, fold: int, device: str) -> None:
    """Train and validate a fold or continue it, unless it is finished."""
    folder = comparison.model(trainer) / f"fold_{fold}"
    if (folder / "validation" / "summary.json").exists():
        return
    unfinished = any(folder.glob("checkpoint_*.pth"))
    command = ("nnUNetv2_train", comparison.number, comparison.configuration, fold, "-tr", trainer, "-p", PLANS)
    options = ("-device", device, "--npz", *(("--c",) if unfinished else ()))
    comparison.run(*command, *options, log=f"{trainer}_fold{fold}")


def dice_table(comparison: Comparison, titles: Mapping[str, str]) -> list[str]:
    """Markdown table of mean validation Dice per class, over the folds that all trainers have finished."""
    found: dict[str, dict[int, dict[str, float]]] = {}  # by trainer, fold and class
    for trainer in titles:
        found[trainer] = {
            int(file.parts[-3].removeprefix("fold_")): {
                name: values["Dice"] for name, values in json.loads(file.read_text())["mean"].items()
            }
            for file in comparison.summaries(trainer)
        }
    folds = sorted(set.intersection(*(set(of_trainer) for of_trainer in found.values())))
    names = list(found[next(iter(titles))][folds[0]]) if folds else []
    lines = [
        f"Folds finished by all trainers: {', '.join(map(str, folds)) or 'none'}.",
        "",
        f"| | trainer | {' | '.join([*(f'Dice {name}' for name in names), 'mean Dice'])} |",
        "|" + "---|" * (3 + len(names)),
    ]
    for trainer, title in titles.items() if names else ():
        means = [statistics.mean(found[trainer][fold][name] for fold in folds) for name in names]
        cells = [*(f"{value:.4f}" for value in means), f"{statistics.mean(means):.4f}"]
        lines.append(f"| {title} | {trainer} | {' | '.join(cells)} |")
    return lines


def write_report(comparison: Comparison, titles: Mapping[str, str]) -> None:
    """Write ``accuracy.md`` and ``accuracy.html`` about the trainers that have a finished fold.

    Raises:
        SystemExit: no fold is finished.
    """
    finished = {trainer: title for trainer, title in titles.items() if comparison.summaries(trainer)}
    if not finished:
        sys.exit(f"error: no finished fold in {comparison.root}; run the command without --report-only")
    timing = comparison.root / "iteration_time.json"
    how = json.loads(timing.read_text()) if timing.exists() else {}
    lines = [f"# {comparison.dataset}, {comparison.configuration}", "", *dice_table(comparison, finished), ""]
    if how:
        lines += ["Timing of training iterations:", "", "```json", json.dumps(how, indent=1), "```", ""]
    (comparison.root / "accuracy.md").write_text("\n".join(lines), encoding="utf-8")
    folders = [comparison.model(trainer) for trainer in finished]
    page = ("-o", comparison.root / "accuracy.html", "--scores", comparison.root / "report_scores", "--partial")
    comparison.run("factorizer-nnunet", "report", *folders, "--names", *finished.values(), *page, log="report")
    print("\n".join(lines))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare, time, train what is missing, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data set in nnU-Net's raw layout (a folder DatasetNNN_Name)")
    parser.add_argument("--root", type=Path, required=True, metavar="WORK", help="working folder")
    parser.add_argument("--configuration", default="3d_fullres", help="nnU-Net configuration (default %(default)s)")
    parser.add_argument("--gpu-memory-target", type=float, metavar="GB", help="for the plans (default: nnU-Net's)")
    parser.add_argument("--iterations", type=int, default=400, help="of nnU-Net's U-Net (default %(default)s)")
    parser.add_argument("--trainers", nargs="+", metavar="NAME", help="compare these trainers instead")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="(default: all five)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each training (default %(default)s)")
    parser.add_argument("--list", action="store_true", help="print the trainers and their finished folds, run nothing")
    parser.add_argument("--report-only", action="store_true", help="report what is finished, train nothing")
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"Dataset\d{3}_.+", options.data.name) or not (options.data / "dataset.json").is_file():
        sys.exit(f"error: {options.data} is not in nnU-Net's raw layout: expected DatasetNNN_Name/dataset.json")
    root = options.root.resolve()
    comparison = Comparison(root, options.data.name, options.configuration, environment(root, options.threads))
    only_read = options.list or options.report_only
    if not only_read:
        prepare(comparison, options.data, options.gpu_memory_target)
    titles = {name: name for name in options.trainers or ()} or timed_trainers(comparison, options, only_read)
    if options.list:
        for trainer, title in titles.items():
            finished = sorted(
                file.parts[-3] for file in comparison.model(trainer).glob("fold_*/validation/summary.json")
            )
            print(f"{title}: {trainer}, {', '.join(finished) or 'no finished fold'}")
        return
    if not only_read:
        runs = [(trainer, fold) for fold in options.folds for trainer in titles]
        with ThreadPoolExecutor(options.jobs) as pool, tqdm(total=len(runs), desc="folds") as bar:
            for _ in pool.map(lambda run: (train(comparison, *run, options.device), bar.update()), runs):
                pass
    write_report(comparison, titles)


def environment(root: Path, threads: int) -> dict[str, str]:
    """Environment of nnU-Net's commands: folders below ``root``, our trainers, few worker processes."""
    trainers = str(Path(__file__).parent / "ext_trainer")
    return {
        **os.environ,
        **environment_variables(root, {EXT_TRAINER_VARIABLE: trainers}),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "2",
        "OMP_NUM_THREADS": str(threads),
    }


def timed_trainers(comparison: Comparison, options: argparse.Namespace, only_read: bool) -> dict[str, str]:
    """The trainers compared by default, whose length follows from the measured time of an iteration.

    Raises:
        SystemExit: iterations are not timed yet and must not be.
    """
    timing = comparison.root / "iteration_time.json"
    if not timing.exists():
        if only_read:
            sys.exit(
                f"error: nothing has run in {comparison.root}; run python -m benchmarks.accuracy without --list "
                "and --report-only first, or name --trainers"
            )
        print("timing iterations of both networks, alternating", flush=True)
        arguments = [comparison.preprocessed / f"{PLANS}.json", comparison.configuration, timing]
        command = [sys.executable, "-m", "benchmarks.iteration_time", *map(str, arguments)]
        subprocess.run([*command, "--threads", str(options.threads)], check=True)
    return default_trainers(options.iterations, json.loads(timing.read_text())["ratio"])


if __name__ == "__main__":
    main()
