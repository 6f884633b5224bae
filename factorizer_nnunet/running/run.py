"""A complete run: check, lock the data set, execute, summarize. Run again, it does what is missing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.interrupts import terminable
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.evaluation.subset_scores import subsets
from factorizer_nnunet.nnunet.folds import NUMBER_OF_FOLDS
from factorizer_nnunet.running.checks import check_after_planning, check_before_planning
from factorizer_nnunet.running.local import LocalExecutor, end_left_over
from factorizer_nnunet.running.request import write_request
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.slurm_queue import refuse_queued
from factorizer_nnunet.running.sources import accept_outdated, known_stamps, record_training
from factorizer_nnunet.running.step import Step
from factorizer_nnunet.running.steps import build_steps, subset_trainings
from factorizer_nnunet.running.summary import DONE, summarize
from factorizer_nnunet.running.summary_page import summary_markdown
from factorizer_nnunet.running.worker_slots import WorkerSlot


def run_here(settings: RunSettings, slots: Sequence[WorkerSlot]) -> bool:
    """Run all that is missing on this machine and write the summary; returns whether every step is done.

    Raises:
        UserError: the settings cannot be met, or another run over the data set is in progress.
        KeyboardInterrupt: after all commands have been ended; the same call resumes.
    """
    refuse_queued(settings)
    check_before_planning(settings)
    with held_run(settings), terminable():
        if count := end_left_over(settings.paths):
            print(f"ended {count} processes that an interrupted run had left behind")
        write_request(settings)
        steps = build_steps(settings)
        print(f"{len(steps)} steps: {', '.join(step.name for step in steps)}", flush=True)
        print_subsets(settings)
        note_existing(settings, steps)
        LocalExecutor(settings, slots).run(steps, lambda: check_after_planning(settings))
        return write_results(settings)


def print_subsets(settings: RunSettings) -> None:
    """Say how many predictions the subsets of channels take, if these were asked for."""
    trainings, dataset = subset_trainings(settings), settings.paths.raw_dataset()
    if trainings:
        cases = len(dataset.training_cases(settings.paths.raw).keys() - dataset.absent_channels.keys())
        share = min(1.0, len(settings.folds) / NUMBER_OF_FOLDS)
        models, count = len({model for model, _ in trainings}), len(subsets(dataset.channel_names))
        print(
            f"channel subsets: about {round(models * cases * share)} validation cases × {count} subsets; each step's "
            "log begins with the time that they take"
        )


def note_existing(settings: RunSettings, steps: Sequence[Step]) -> None:
    """Record what results of other commands were made from, so that a later change of it is noticed.

    Call it while the run is held.

    Raises:
        UserError: a record cannot be written.
    """
    try:
        _accept_outdated(settings)
        for step in steps:
            if not step.look().done:
                return  # what comes after may have other sources when it is its turn
            if step.trains is not None:
                record_training(settings.paths, *step.trains)
            elif step.derived is not None and not (made := step.derived()).record.exists():
                made.write_record(known_stamps(settings.paths))
    except OSError as error:
        raise UserError(
            f"cannot record what existing results were made from: {error}. Fix that and try again"
        ) from error


def _accept_outdated(settings: RunSettings) -> None:
    if settings.accept_outdated:
        for path in accept_outdated(settings):
            print(f"NOTE: {path} is used as it is, although what it was made from has changed")


@contextlib.contextmanager
def held_run(settings: RunSettings) -> Iterator[None]:
    """Lock a data set against other runs, of whatever name: they prepare the same data and may train the same folds.

    Raises:
        UserError: another run is in progress.
    """
    see = f"see factorizer-nnunet status -d {settings.dataset_id}"
    with contextlib.ExitStack() as stack:
        for paths in dict.fromkeys((settings.paths.unnamed, settings.paths)):
            paths.run.mkdir(parents=True, exist_ok=True)
            busy = f"another run over {settings.dataset} is in progress: {see}"
            stack.enter_context(file_lock(paths.lock, busy))
        yield


def write_results(settings: RunSettings) -> bool:
    """Write the summary as Markdown and JSON, and the report; returns whether every step is done.

    Raises:
        UserError: the summary cannot be written.
    """
    _accept_outdated(settings)  # also what a step of this run has made again
    file = settings.paths.summary
    summary = summarize(settings)
    try:
        write_text_atomically(file.with_suffix(".json"), json.dumps(summary, indent=4) + "\n")
        write_text_atomically(file.with_suffix(".md"), summary_markdown(summary))
    except OSError as error:
        raise UserError(
            f"cannot write {file}.json or .md ({error}). Fix that and run the same command again: what is done stays"
        ) from error
    _write_report(settings)
    return all(step["state"] == DONE for step in summary["steps"])


def _write_report(settings: RunSettings) -> None:
    """Write the report of all models whose folds are validated; a failure is only a warning."""
    from factorizer_nnunet.report import Sources, write_report

    paths = settings.paths
    models = [
        paths.model(model).path
        for model in settings.trained_models
        if all(paths.fold(model, fold).summary.is_file() for fold in settings.folds)
    ]
    if not models:
        return
    try:  # partial: the run may be about some of the folds, and then the page says so
        sources = Sources(environment=settings.folders.variables)
        written = write_report(models, paths.report, sources=sources, partial=True)
    except (OSError, UserError) as error:
        print(f"WARNING: no report: {error}")
    else:
        if written.kept_line is not None:
            print(written.kept_line)
