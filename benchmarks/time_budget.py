"""Whether a training with a time ends in it: ``python -m benchmarks.time_budget --work DIR --minutes 3``.

Synthetic patients are converted, planned and preprocessed. Then ``nnUNetv2_train`` trains a fold with a trainer whose
name has the time, such as ``nnUNetTrainerFactorizer_3m_20iters``, and its complete run is timed from outside: start,
measurement, epochs, and the validation of the fold's cases. Writes time_budget.json and time_budget.md. Run again, it
adds the times that have no row yet.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.output_paths import output_folder
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.core.processes import core_count, script
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.demo.phantom import write_set
from factorizer_nnunet.nnunet.environment import AUGMENTATION_VARIABLE, create_folders, environment_variables
from factorizer_nnunet.nnunet.names import TRAINER
from factorizer_nnunet.training.time_plan import TIME_PLAN_FILE
from factorizer_nnunet.training.timed import CORRECTED

NAME, NUMBER, DATASET = "time_budget", "7", "Dataset007_Phantom"
PLANS, CONFIGURATION = "nnUNetFactorizerTemplatePlans_demo", "3d_fullres"
PATIENTS = 10  # of which a fifth are validated


def run(root: Path, augmentation: str, *command: object) -> float:
    """Run an installed command below ``root``; returns its seconds.

    Raises:
        SystemExit: it failed; its output is in ``log.txt``.
    """
    few = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    environment = {**os.environ, **environment_variables(root, {}), **few, AUGMENTATION_VARIABLE: augmentation}
    words = [script(str(command[0])), *map(str, command[1:])]
    start = time.monotonic()
    with (root / "log.txt").open("a") as log:
        status = subprocess.run(words, env=environment, stdout=log, stderr=log, check=False).returncode
    if status:
        sys.exit(f"error: {command[0]} ended with status {status}; see {root / 'log.txt'}")
    return time.monotonic() - start


def prepare(root: Path) -> None:
    """Draw, convert, plan and preprocess the patients, unless done."""
    create_folders(root)
    if not (root / "source").exists():
        write_set(root / "source", training=PATIENTS, held_out=0, seed=0)
        run(root, "", "factorizer-nnunet", "convert", "brats2021", root / "source", "-d", NUMBER, "--name", "Phantom")
        run(root, "", "factorizer-nnunet", "plan", "-d", NUMBER, "--template", "demo", "-np", "1")


def train(root: Path, minutes: int, augmentation: str) -> dict[str, Any]:
    """Train a fold in a time: how long it took, and what was planned; plain JSON values."""
    trainer = f"{TRAINER}_{minutes}m_20iters"
    options = ("-tr", trainer, "-p", PLANS, "-device", "cpu")
    seconds = run(root, augmentation, "nnUNetv2_train", NUMBER, CONFIGURATION, "0", *options)
    fold = root / "nnUNet_results" / DATASET / f"{trainer}__{PLANS}__{CONFIGURATION}" / "fold_0"
    plan = read_complete_json(fold / TIME_PLAN_FILE)
    if plan is None or not (fold / "validation" / "summary.json").is_file():
        sys.exit(f"error: {fold} has no finished validation")
    logs = "".join(log.read_text() for log in fold.glob("training_log*"))
    fold.rename(fold.with_name(f"fold_0_{augmentation}"))  # the next setting trains again
    corrections = logs.count(CORRECTED)
    return {
        "minutes": minutes,
        "augmentation": augmentation,
        "seconds": seconds,
        "plan": plan,
        "corrections": corrections,
    }


def page(results: Mapping[str, Any]) -> str:
    """Markdown."""
    header = ["time", "augmented by", "took", "of the time", "epochs × iterations", "corrections"]
    rows = [[*header, "validation: estimated s"]]
    for row in results["rows"]:
        plan, share = row["plan"], row["seconds"] / (60 * row["minutes"])
        length = f"{plan['epochs']} × {plan['iterations_per_epoch']}"
        final = f"{plan['measured_seconds']['final']:.0f}"
        taken = f"{row['seconds']:.0f} s"
        corrections = str(row["corrections"])
        rows.append(
            [f"{row['minutes']} minutes", row["augmentation"], taken, f"{share:.1%}", length, corrections, final]
        )
    return f"""# Trainings with a time

Written by `python -m benchmarks.time_budget` (see `--help`): `nnUNetv2_train` with trainers such as
`nnUNetTrainerFactorizer_3m_20iters` on {PATIENTS} synthetic patients, timed from outside from start to end, with the
validation of the fold's cases. {results["machine"]}.

{markdown_table(rows, right=True)}

Epochs and iterations are as planned before the first epoch. Corrections are how often the length of the remaining
epochs was changed later, because the machine, which had other work, had become slower or faster. Starting and ending
take seconds, whatever the time is, so that longer trainings are closer to it. It has **not been measured on a GPU
yet**.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for data and results")
    parser.add_argument("--minutes", type=int, nargs="+", default=[3], help="times (default 3)")
    parser.add_argument("--augmentation", nargs="+", choices=("workers", "device"), default=["workers"])
    parser.add_argument("--docs", type=output_folder, default="docs/measured", help="folder for the results")
    options = parser.parse_args(arguments)
    prepare(options.work)
    file = options.docs / f"{NAME}.json"
    machine = f"{platform.machine()}, {count_of(core_count(), 'core')}, torch {torch.__version__}, no GPU"
    results = read_complete_json(file) or {"machine": machine, "rows": []}
    done = {(row["minutes"], row["augmentation"]) for row in results["rows"]}
    for minutes in options.minutes:
        for augmentation in options.augmentation:
            if (minutes, augmentation) not in done:
                results["rows"].append(train(options.work, minutes, augmentation))
                write_text_atomically(file, json.dumps(results, indent=1) + "\n")
    write_text_atomically(options.docs / f"{NAME}.md", page(results))
    print(page(results))


if __name__ == "__main__":
    main()
