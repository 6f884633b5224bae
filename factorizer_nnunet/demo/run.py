"""The whole job on synthetic patients, step by step; run again with the same arguments, it goes on where it was."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from factorizer_nnunet.core.atomic_files import atomic_file, write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.interrupts import terminable
from factorizer_nnunet.dataset_conversion.catalog import RELEASES
from factorizer_nnunet.dataset_conversion.convert import convert_release
from factorizer_nnunet.dataset_conversion.discover import list_files
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.demo import stock
from factorizer_nnunet.demo.figure import draw_figure
from factorizer_nnunet.demo.jobs import end_left_over, run_jobs
from factorizer_nnunet.demo.phantom import write_set
from factorizer_nnunet.demo.progress import Reporter
from factorizer_nnunet.demo.scores import MEAN, Scores, markdown_table, mean_scores, score_folder
from factorizer_nnunet.demo.workspace import (
    DATASET_ID,
    DATASET_NAME,
    FOLDS,
    Arguments,
    Workspace,
    opened,
)
from factorizer_nnunet.nnunet.environment import environment_variables
from factorizer_nnunet.nnunet.names import TRAINER
from factorizer_nnunet.report import Sources, write_report

RELEASE = RELEASES["brats2021"]
DEFAULT_PATIENTS = 25
# Enough iterations for the small network of the template demo to learn the phantoms.
DEFAULT_TRAINER = f"{TRAINER}_8epochs_20iters"
MIN_TRAINING, MIN_HELD_OUT = len(FOLDS), 2
MEAN_OF_FOLDS, ENSEMBLE = "mean of folds", "ensemble"


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
        seed: of the patients.
        device: "cpu", "cuda", "mps", or "auto" for CUDA where there is one.
        trainer: the trainer's name, which says the length of training.

    Raises:
        UserError: bad arguments, an `out` that holds something else, or a failed command.
    """
    held_out = held_out_patients(patients)
    if seed < 0:
        raise UserError(f"--seed {seed} is negative; give 0 or more")
    with opened(out, Arguments(patients=patients, seed=seed, trainer=trainer)) as workspace, terminable():
        if workspace.results.is_file():
            print(
                f"The demo is finished in {workspace.out}; for a new one remove that folder or choose another --out.\n"
            )
        else:
            _run_steps(workspace, held_out, stock.this_machine(_resolved(device)))
        _show(workspace)
    return workspace.results


def _run_steps(workspace: Workspace, held_out: int, machine: stock.Machine) -> None:
    reporter = Reporter(steps=7)
    reporter.say(f"working in {workspace.out} on {machine.device}, {machine.lanes} commands at a time")
    if left := end_left_over(workspace):
        reporter.say(f"ended {left} processes that an interrupted run had left behind")
    print("        to use the stock commands below yourself, first:")
    print(f'        $ eval "$(factorizer-nnunet env --root {shlex.quote(str(workspace.out))})"', flush=True)
    environment = stock.environment(workspace, machine)
    training = workspace.arguments.patients - held_out

    reporter.step(f"draw {training} patients to train with and {held_out} held out, in the layout of {RELEASE.title}")
    _do(workspace, reporter, "patients", workspace.source, lambda: _draw_patients(workspace, training, held_out))
    reporter.step("convert them to nnU-Net's raw layout")
    _do(workspace, reporter, "convert", workspace.dataset, lambda: _convert(workspace))
    reporter.step("fingerprint and plan, then lay the demo's small network over the plans")
    run_jobs([stock.plan_job(workspace, machine)], 1, workspace, environment, reporter)
    reporter.step("preprocess")
    run_jobs([stock.preprocess_job(workspace, machine)], 1, workspace, environment, reporter)
    reporter.step("train five folds; each then segments the held-out patients")
    trainings = [stock.train_job(workspace, machine, fold) for fold in FOLDS]
    predictions = [stock.predict_job(workspace, machine, fold, held_out) for fold in FOLDS]
    run_jobs([*trainings, *predictions], machine.lanes, workspace, environment, reporter)
    reporter.step("ensemble: average the five folds' probabilities")
    run_jobs([stock.ensemble_job(workspace)], 1, workspace, environment, reporter)
    reporter.step("score against the truth and draw")
    _report(workspace)
    reporter.say(f"the five folds' cross-validation is in {workspace.report}")
    _score(workspace)
    reporter.say("finished\n")


def _do(workspace: Workspace, reporter: Reporter, name: str, output: Path, action: Callable[[], None]) -> None:
    """Run a step of our own unless it is done."""
    if workspace.is_done(name, [output]):
        reporter.say(f"already there: {output}")
        return
    started = time.monotonic()
    if output.exists():  # whole, but killed before its stamp: cheaper to do again than to trust
        shutil.rmtree(output)
    action()
    workspace.mark_done(name, time.monotonic() - started)
    reporter.say(f"written to {output}")


def _draw_patients(workspace: Workspace, training: int, held_out: int) -> None:
    draft = workspace.source.with_name(f"{workspace.source.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    write_set(draft, training=training, held_out=held_out, seed=workspace.arguments.seed)
    draft.rename(workspace.source)


def _convert(workspace: Workspace) -> None:
    options = Options(dataset_id=DATASET_ID, name=DATASET_NAME)
    convert_release(RELEASE, list_files([workspace.source]), workspace.raw, options)


def _report(workspace: Workspace) -> None:
    """Write the page about the cross-validation, scores beside it."""
    model = workspace.model(FOLDS[0]).parent
    sources = Sources(environment=environment_variables(workspace.out))
    flair = [channel.name for channel in RELEASE.channels].index("FLAIR")
    write_report([model], workspace.report, names=["Factorizer"], sources=sources, channel=flair)


def _score(workspace: Workspace) -> None:
    """Write table, figure and results; the results come last, since they say that the demo is finished."""
    folds = [score_folder(RELEASE.schemes[0], workspace.truth, workspace.prediction(fold)) for fold in FOLDS]
    rows: dict[str, Scores] = {f"fold {fold}": score for fold, score in zip(FOLDS, folds, strict=True)}
    rows[MEAN_OF_FOLDS] = mean_scores(folds)
    rows[ENSEMBLE] = score_folder(RELEASE.schemes[0], workspace.truth, workspace.ensemble)
    write_text_atomically(workspace.table, markdown_table(rows))
    with atomic_file(workspace.figure) as draft:
        draw_figure(RELEASE, workspace.dataset / "imagesTs", workspace.truth, workspace.ensemble, draft)
    results = {
        "patients": workspace.arguments.patients,
        "held_out": len(list(workspace.truth.glob("*.nii.gz"))),
        "seed": workspace.arguments.seed,
        "trainer": workspace.arguments.trainer,
        "dice": rows,
        "seconds": workspace.seconds(),
    }
    write_text_atomically(workspace.results, json.dumps(results, indent=4) + "\n")


def _show(workspace: Workspace) -> None:
    results = json.loads(workspace.results.read_text(encoding="utf-8"))
    print(f"{results['held_out']} held-out patients:\n")
    print(markdown_table(results["dice"]))
    gain = results["dice"][ENSEMBLE][MEAN] - results["dice"][MEAN_OF_FOLDS][MEAN]
    print(f"The ensemble's mean is {abs(gain):.3f} {'above' if gain >= 0 else 'below'} the mean of the single folds.")
    print(f"Table: {workspace.table}\nPicture: {workspace.figure}\nAll numbers: {workspace.results}")
    print(f"Report of the cross-validation, for a browser: {workspace.report}", flush=True)


def _resolved(device: str) -> str:
    import torch  # here, since it takes seconds and a finished demo needs none of it

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, False):
        raise UserError(f"--device {device} is not available here; use one of {[d for d in available if available[d]]}")
    return device
