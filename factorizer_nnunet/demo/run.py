"""The complete job on synthetic patients by the commands that a user would type: convert, run, report.

Each command resumes from what it finds on disk, and so does the demo when it is run again with the same arguments.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from factorizer_nnunet.core.atomic_files import atomic_file, atomic_folder, write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.interrupts import terminable
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.core.processes import core_count, end_marked, script
from factorizer_nnunet.dataset_conversion.releases import RELEASES
from factorizer_nnunet.demo.figure import draw_figure
from factorizer_nnunet.demo.folder import DATASET_ID, DATASET_NAME, Arguments, DemoFolder, opened
from factorizer_nnunet.demo.phantom import write_set
from factorizer_nnunet.nnunet.environment import COMPILE_VARIABLE, environment_variables
from factorizer_nnunet.nnunet.folds import NUMBER_OF_FOLDS
from factorizer_nnunet.nnunet.names import TRAINER
from factorizer_nnunet.running.summary import MEAN
from factorizer_nnunet.running.worker_slots import available_device

RELEASE = RELEASES["brats2021"]
DEFAULT_PATIENTS = 25
# Enough iterations for the small network of the demo's template to learn the phantoms.
DEFAULT_TRAINER = f"{TRAINER}_8epochs_20iters"
MIN_TRAINING, MIN_HELD_OUT = NUMBER_OF_FOLDS, 2
ALL_FOLDS, ENSEMBLE = "all folds", "ensemble"
OWNER_VARIABLE = "FACTORIZER_NNUNET_DEMO"  # names the demo's folder in every process that it starts

Dice = Mapping[str, float]  # by region, and their mean under MEAN


def held_out_patients(patients: int) -> int:
    """Return how many of `patients` are kept for the final test: a fifth, at least 2.

    Raises:
        UserError: too few would be left to train five folds.
    """
    held_out = max(MIN_HELD_OUT, patients // 5)
    if patients - held_out < MIN_TRAINING:
        raise UserError(
            f"--patients {patients} is too few: five folds need {MIN_TRAINING} patients and the test needs "
            f"{MIN_HELD_OUT}, so give at least {MIN_TRAINING + MIN_HELD_OUT}"
        )
    return held_out


def run_demo(
    out: Path,
    *,
    patients: int = DEFAULT_PATIENTS,
    seed: int = 0,
    device: str = "auto",
    trainer: str = DEFAULT_TRAINER,
) -> Path:
    """Run the demo in the folder `out` and return the path of its results, results.json.

    Args:
        out: a new or empty folder, or that of a demo with the same arguments, which is then finished.
        patients: number of synthetic patients; a fifth is held out.
        seed: random seed of the patients.
        device: "cpu", "cuda", "mps", or "auto" for CUDA where there is a GPU, else the CPU.
        trainer: the trainer's name, which sets the length of training.

    Raises:
        UserError: bad arguments, an `out` that contains something else, or a failed command.
    """
    held_out = held_out_patients(patients)
    if seed < 0:
        raise UserError(f"--seed {seed} is negative; give 0 or more")
    device = available_device(device)
    with opened(out, Arguments(patients=patients, seed=seed, trainer=trainer)) as folder, terminable():
        if folder.results.is_file():
            print(f"The demo is finished in {folder.out}; for a new one remove that folder or choose another --out.\n")
        else:
            _run_steps(folder, held_out, device)
        _show(folder)
    return folder.results


def _run_steps(folder: DemoFolder, held_out: int, device: str) -> None:
    if count := end_marked(OWNER_VARIABLE, str(folder.out)):
        print(f"ended {count} processes that an interrupted demo had left behind")
    arguments, paths = folder.arguments, folder.run
    training = arguments.patients - held_out
    if not folder.source.exists():
        print(f"Drawing {training} patients to train with and {held_out} held out, in the layout of {RELEASE.title}")
        with atomic_folder(folder.source) as draft:
            write_set(draft, training=training, held_out=held_out, seed=arguments.seed)
    print(f'$ eval "$(factorizer-nnunet env --root {shlex.quote(str(folder.out))})"')
    if not paths.raw.exists():
        run_command(folder, "convert", RELEASE.key, folder.source, "-d", DATASET_ID, "--name", DATASET_NAME)
    # Few patients: each worker process would take longer to start than to work.
    options = ["--template", arguments.template, "-tr", arguments.trainer, "--device", device, "-np", 1]
    if device == "cpu" and core_count() == 2:
        options += ["--folds-at-a-time", 3]  # three folds, then two: no core is idle during the fifth
    test = ("--output", folder.predictions, "--references", folder.references)
    run_command(folder, "run", "-d", DATASET_ID, *options, *test)
    flair = [channel.name for channel in RELEASE.channels].index("FLAIR")
    run_command(folder, "report", folder.model, "--names", "Factorizer", "--channel", flair, "-o", folder.report)
    _write_results(folder)


def run_command(folder: DemoFolder, *words: object) -> None:
    """Print a command as a user would type it, and run it; when interrupted, let it save and end first.

    Raises:
        UserError: it failed.
    """
    command = ["factorizer-nnunet", *map(str, words)]
    print(f"\n$ {shlex.join(command)}", flush=True)
    quick = {
        "nnUNet_def_n_proc": "1",  # each worker of nnU-Net's pools imports PyTorch again: too slow for few patients
        COMPILE_VARIABLE: "0",  # compiling takes longer than a training as short as this one
    }
    environment = {**os.environ, **environment_variables(folder.out), **quick, OWNER_VARIABLE: str(folder.out)}
    argv = [script(command[0]), *command[1:]]
    process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        if process.wait() == 130:  # it has said how to continue
            raise SystemExit(130) from None
        raise
    if status != 0:
        raise UserError(
            f"factorizer-nnunet {command[1]} ended with status {status}, see above. Fix it and run the demo again"
        )


def _write_results(folder: DemoFolder) -> None:
    """Write table, figure and results; the results come last, since they mark the demo as finished."""
    summary = json.loads(folder.run.summary.with_suffix(".json").read_text(encoding="utf-8"))
    model = summary["models"][0]
    rows: dict[str, Dice] = {f"fold {fold}": dice for fold, dice in model["folds"].items()}
    rows[ALL_FOLDS], rows[ENSEMBLE] = model["all_folds"], summary["test"]["dice"]
    write_text_atomically(folder.table, dice_table(rows))
    with atomic_file(folder.figure) as draft:
        draw_figure(RELEASE, folder.run.raw / "imagesTs", folder.references, folder.predictions, draft)
    results = {
        "patients": folder.arguments.patients,
        "held_out": len(list(folder.references.glob("*.nii.gz"))),
        "seed": folder.arguments.seed,
        "trainer": folder.arguments.trainer,
        "dice": rows,
        "seconds": {step["name"]: step["seconds"] for step in summary["steps"]},
    }
    write_text_atomically(folder.results, json.dumps(results, indent=4) + "\n")


def dice_table(rows: Mapping[str, Dice]) -> str:
    """The Dice of every row and column."""
    columns = list(next(iter(rows.values())))
    cells = [[name, *(f"{dice[column]:.3f}" for column in columns)] for name, dice in rows.items()]
    return markdown_table([["Dice", *columns], *cells], right=True) + "\n"


def _show(folder: DemoFolder) -> None:
    results = json.loads(folder.results.read_text(encoding="utf-8"))
    print(f"\nCross-validation of {results['patients'] - results['held_out']} patients, each scored by the fold that")
    print(f"was trained without it, and the ensemble of all folds on {results['held_out']} held-out patients:\n")
    print(dice_table(results["dice"]))
    dice = {row: results["dice"][row][MEAN] for row in (ALL_FOLDS, ENSEMBLE)}
    print(f"Mean Dice: {dice[ENSEMBLE]:.3f} of the ensemble, {dice[ALL_FOLDS]:.3f} of the single folds.")
    print(f"Table: {folder.table}\nPicture: {folder.figure}\nAll numbers: {folder.results}")
    print(f"Report of the cross-validation, for a browser: {folder.report}", flush=True)
