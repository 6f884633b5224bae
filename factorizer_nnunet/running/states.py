"""How far preparation, training and the choice of the best model are, read from what nnU-Net leaves on disk.

nnU-Net writes most files in place, so that a killed command leaves incomplete ones. A step is done when the file that
its command writes last is complete and belongs to all the others; files that hinder another attempt are listed as left
over. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from factorizer_nnunet.nnunet.integrity import is_complete, is_preprocessed
from factorizer_nnunet.running.best_configuration import current_best_configuration
from factorizer_nnunet.running.dataset_files import configuration, raw_dataset_json, training_labels, validation_cases
from factorizer_nnunet.running.models import RunModel
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.step import State

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")


def fingerprint_state(paths: RunPaths) -> State:
    """Done when the fingerprint is complete."""
    return State(is_complete(paths.fingerprint), left_over=cut_off([paths.fingerprint]))


def plans_state(paths: RunPaths, plans: str) -> State:
    """Done when planning has copied ``dataset.json`` and written the plans, which come last."""
    files = [paths.dataset_json, paths.plans(plans)]
    return State(all(is_complete(file) for file in files), left_over=cut_off([*files, paths.splits]))


def preprocessed_state(paths: RunPaths, plans: str, name: str) -> State:
    """Done when every case is preprocessed and all labels are copied, which comes last."""
    plan = configuration(paths, plans, name)
    if plan is None:
        return State(False)
    labels = training_labels(paths)
    folder = paths.preprocessed / plan["data_identifier"]
    cases = sum(is_preprocessed(folder, case) for case in labels)
    ending = raw_dataset_json(paths)["file_ending"]
    sizes = {paths.labels / f"{case}{ending}": file.stat().st_size for case, file in labels.items()}
    # nnU-Net copies a label again only if the original is newer than the copy: it would keep an incomplete copy.
    incomplete = tuple(copy for copy, size in sizes.items() if copy.exists() and copy.stat().st_size != size)
    copied = not incomplete and all(copy.exists() for copy in sizes)
    return State(cases == len(labels) and copied, f"{cases} of {len(labels)} cases", incomplete)


def folds_state(paths: RunPaths) -> State:
    """Done when the file of folds is complete."""
    return State(is_complete(paths.splits), left_over=cut_off([paths.splits]))


def fold_state(paths: RunPaths, model: RunModel, fold: int, next_stages: Sequence[str]) -> State:
    """Done when the fold has its final checkpoint and, for all validation cases, scores and probabilities.

    Args:
        next_stages: cascades that refine this model's segmentations.
    """
    folder = paths.fold(model, fold)
    broken = [path for name in CHECKPOINTS if (path := folder / name).exists() and not is_complete(path)]
    trained, summary = is_complete(paths.checkpoint(model, fold)), paths.fold_summary(model, fold)
    cases = validation_cases(paths, fold)
    validated = sum(_validated(paths, model, fold, case, next_stages) for case in cases)
    done = trained and is_complete(summary) and validated == len(cases)
    stale = [summary] if trained and summary.exists() and not done else []
    progress = f"validated {validated} of {len(cases)} cases" if trained else ""
    return State(done, progress, (*broken, *folder.glob("*.draft"), *stale))


def best_configuration_state(settings: RunSettings) -> State:
    """Done when the best configuration was chosen among these models and folds, after they were validated."""
    done = current_best_configuration(settings) is not None
    return State(done, left_over=cut_off([settings.paths.best_configuration]))


def cut_off(files: Iterable[Path]) -> tuple[Path, ...]:
    """The files that exist but are incomplete."""
    return tuple(file for file in files if file.exists() and not is_complete(file))


def _validated(paths: RunPaths, model: RunModel, fold: int, case: str, next_stages: Sequence[str]) -> bool:
    folder = paths.validation(model, fold)
    files = [folder / f"{case}.npz", folder / f"{case}.pkl"]
    for stage in next_stages:
        older = paths.next_stage(model, stage) / f"{case}.npz"
        files.append(older if older.exists() else older.with_suffix(".b2nd"))
    return all(is_complete(file) for file in files)
