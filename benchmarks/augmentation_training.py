"""Whether a training learns as much with samples that the device augments as with those of nnU-Net's workers.

    OMP_NUM_THREADS=1 nice -n 19 python -m benchmarks.augmentation_training --root WORK
    python -m benchmarks.augmentation_training --page

Trains the default network on fold 0 of the Decathlon's hippocampus with nnU-Net's pipeline and with the one that
``nnUNet_factorizer_augmentation=device`` divides, both on the CPU: several seeds, equal iterations, and all else as in
``benchmarks.real_data``. Each finished training becomes a line of the results, and the page is written again; a command
that was stopped continues, within a training, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.nnunet_commands import ROOT
from benchmarks.real_data.arms import ARMS, Arm
from benchmarks.real_data.data import DataSet, data_set
from benchmarks.real_data.pieces import SHORT, epoch
from benchmarks.real_data.results import Results
from benchmarks.real_data.running import machine, train, trained
from benchmarks.real_data.study import add_options, checked_root, continuable, num_threads, write_again
from benchmarks.real_data.summary import case_means
from benchmarks.real_data.workspace import Workspace
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.nnunet.environment import AUGMENTATION_VARIABLE, Augmentation
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.training.data_wait import FIRST_STEPS, MEASURED_STEPS

RESULTS = ROOT / "docs" / "measured" / "augmentation_training.json"
_FEWEST = FIRST_STEPS + MEASURED_STEPS  # after so many steps, a training's log says which pipeline augments
PIPELINES = (Augmentation.WORKERS, Augmentation.DEVICE)
CONFIGURATION, FOLD = "3d_fullres", 0
LEVEL = 0.95  # of the interval that the spread of seeds gives


@dataclass(frozen=True)
class AugmentedWorkspace(Workspace):
    """A working folder whose trainings are augmented as ``augmentation`` says."""

    augmentation: Augmentation = Augmentation.WORKERS

    def environment(self, command: str) -> dict[str, str]:
        """Of a command."""
        return {**super().environment(command), AUGMENTATION_VARIABLE: self.augmentation.value}


def arm(augmentation: Augmentation) -> Arm:
    """The default network, with plans of another name, so that each pipeline has models of its own."""
    default = ARMS["default"]
    return replace(default, plans=f"{default.plans}_{augmentation.value}")


def key(augmentation: Augmentation, seed: int) -> str:
    """The name of a training in the results."""
    return f"{augmentation.value}/seed_{seed}"


def run_training(workspace: AugmentedWorkspace, data: DataSet, seed: int) -> dict[str, Any]:
    """Train, validate and score one seed.

    Raises:
        UserError: a command failed, or another pipeline than the one asked for augmented.
    """
    own = arm(workspace.augmentation)
    workspace.write_plans(data, [own])
    one = epoch(SHORT, data)
    trainer = f"{own.trainer}_{data.short // one}epochs_{one}iters_seed{seed}"
    model = ModelName(trainer, own.plans, CONFIGURATION)
    fold = workspace.fold(data, model, FOLD)
    spent = train(workspace, data, model, FOLD)
    log = "".join(file.read_text(encoding="utf-8") for file in fold.path.glob("training_log_*.txt"))
    named = {Augmentation.WORKERS: "the workers augment", Augmentation.DEVICE: "the device augments"}
    if [name for name in named.values() if name in log] != [named[workspace.augmentation]]:
        raise UserError(f"{fold.path}: its log does not say that {named[workspace.augmentation]}")
    return {**trained(workspace, data, fold), "command_seconds": round(spent, 1), **machine(workspace)}


def run_all(root: Path, threads: int, data: DataSet, source: Path, seeds: Sequence[int], results: Results) -> None:
    """Run the trainings that have no results, one seed of both pipelines before the next.

    Raises:
        UserError: a training failed, another command runs in the folder, or the results are of another length.
    """
    known = {one["iterations"] for one in results.read()["pieces"].values()}
    if known - {data.short}:
        raise UserError(f"{results.file} has trainings of {max(known)} iterations: write to another file (--results)")
    root.mkdir(parents=True, exist_ok=True)
    with file_lock(root / ".lock", f"another benchmark runs in {root}: use another --root"):
        workspaces = [AugmentedWorkspace(root, "cpu", threads, augmentation) for augmentation in PIPELINES]
        workspaces[0].end_earlier_commands()
        workspaces[0].prepare(data, source)
        for seed in seeds:
            for workspace in workspaces:
                name = key(workspace.augmentation, seed)
                if name not in results.read()["pieces"]:
                    print(f"{name} …", flush=True)
                    results.add("pieces", name, run_training(workspace, data, seed))
                    write_page(results)


def write_page(results: Results) -> None:
    """Write the page next to the results."""
    write_text_atomically(results.file.with_suffix(".md"), page(results.read()["pieces"]))


def mean_dice(training: Mapping[str, Any]) -> float:
    """Mean over the validation cases of the mean over both labels."""
    return float(np.nanmean(list(case_means(training["scores"]).values())))


def of_pipeline(pieces: Mapping[str, Any], augmentation: Augmentation) -> dict[int, Mapping[str, Any]]:
    """The finished trainings of a pipeline by seed."""
    prefix = key(augmentation, 0)[:-1]
    found = {int(name.removeprefix(prefix)): one for name, one in pieces.items() if name.startswith(prefix)}
    return dict(sorted(found.items()))


def verdict(workers: Sequence[float], device: Sequence[float]) -> str:
    """The difference of the means against what the spread of seeds explains: Welch's interval."""
    if min(len(workers), len(device)) < 2:
        return "Each pipeline needs two seeds for a comparison."
    apart = float(np.mean(device) - np.mean(workers))
    interval = stats.ttest_ind(device, workers, equal_var=False).confidence_interval(LEVEL)
    within = interval.low <= 0 <= interval.high
    answer = "is within the noise of seeds" if within else "is larger than the noise of seeds explains"
    return (
        f"Device minus workers is {apart:+.4f}, {LEVEL:.0%} interval {interval.low:+.4f} to {interval.high:+.4f} by "
        f"Welch's t: **the difference {answer}**. With these seeds, one of more than "
        f"{(interval.high - interval.low) / 2:.4f} would be called larger."
    )


def page(pieces: Mapping[str, Any]) -> str:
    """Markdown."""
    trainings = [of_pipeline(pieces, augmentation) for augmentation in PIPELINES]
    rows = [["seed", *(f"{one.value}: mean Dice" for one in PIPELINES), *(f"{one.value}: CPU s" for one in PIPELINES)]]
    for seed in sorted({*trainings[0], *trainings[1]}):
        of_seed = [own.get(seed) for own in trainings]
        dice = ["" if one is None else f"{mean_dice(one):.4f}" for one in of_seed]
        seconds = ["" if one is None else f"{one['seconds'] / one['iterations']:.3f}" for one in of_seed]
        rows.append([str(seed), *dice, *seconds])
    values = [[mean_dice(one) for one in own.values()] for own in trainings]
    spent = [[one["seconds"] / one["iterations"] for one in own.values()] for own in trainings]
    if all(len(own) > 1 for own in values):
        rows.append(["mean", *(f"{np.mean(own):.4f}" for own in values), *(f"{np.mean(own):.3f}" for own in spent)])
        rows.append(["standard deviation", *(f"{np.std(own, ddof=1):.4f}" for own in values), "", ""])
    first = next(iter(pieces.values()))
    machines = sorted({one["machine"] for one in pieces.values()})
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    return f"""# A training with either augmentation

Written by `python -m benchmarks.augmentation_training --root WORK` (see `--help`) from
[augmentation_training.json](augmentation_training.json). *workers* is nnU-Net's pipeline as its workers run it;
*device* is `nnUNet_factorizer_augmentation=device` with the CPU as the device. Both train the default network on fold 0
of 100 cases of the Decathlon's hippocampus by `nnUNetv2_train`, for {first["iterations"]} iterations in one process
that loads and augments, too (`nnUNet_n_proc_DA=0`). Mean Dice is that of the {len(first["scores"])} validation cases
and both labels; a seed sets the weights that a training starts from and its random numbers. CPU s is the process's CPU
time of a training step with loading and augmentation, on a machine with other work.

{markdown_table(rows, right=True)}

{verdict(*values)}

{"; ".join(machines)}; {versions}.
"""


def num_iterations(text: str) -> int:
    """A number of iterations; argparse names this function where the text is not a number."""
    number = int(text)
    if number < _FEWEST or number % 10:
        raise argparse.ArgumentTypeError(f"{number} is not a multiple of 10 from {_FEWEST} on")
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page, or run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, RESULTS)
    parser.add_argument(
        "--iterations",
        type=num_iterations,
        metavar="N",
        help=f"a multiple of 10 from {_FEWEST} on (default: those of real_data)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], metavar="N", help="default 0 to 4")
    options = parser.parse_args(arguments)
    results = Results(options.results)
    with continuable():
        if options.page:
            write_again(results, write_page)
            return
        root = checked_root(options.root)
        data, source = data_set("hippocampus", options.parent)
        if options.iterations is not None:
            data = replace(data, short=options.iterations)
        run_all(root, num_threads(), data, source, options.seeds, results)


if __name__ == "__main__":
    main()
