"""How far preparation, training and the choice of the best model are, read from what nnU-Net leaves on disk.

nnU-Net writes most files in place, so that a killed command leaves incomplete ones. A step is done when the file that
its command writes last is complete and belongs to all the others; files that hinder another attempt are listed as left
over. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.nnunet.integrity import is_complete, is_preprocessed
from factorizer_nnunet.nnunet.model_folder import CHECKPOINTS
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.plans import resolved_configuration
from factorizer_nnunet.running.best_configuration import current_best_configuration
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.step import State


def fingerprint_state(paths: RunPaths) -> State:
    """Done when the fingerprint is complete."""
    return State(is_complete(paths.fingerprint), left_over=cut_off([paths.fingerprint]))


def plans_state(paths: RunPaths, plans: str) -> State:
    """Done when planning has copied ``dataset.json`` and written the plans, which come last."""
    files = [paths.dataset_json, paths.plans(plans)]
    return State(all(is_complete(file) for file in files), left_over=cut_off(files))


def preprocessed_state(paths: RunPaths, plans: str, name: str) -> State:
    """Done when every case is preprocessed and all labels are copied, which comes last."""
    planned = resolved_configuration(read_complete_json(paths.plans(plans)) or {}, name, plans)
    if not planned:
        return State(False)
    dataset = paths.raw_dataset()
    labels = dataset.training_labels(paths.raw)
    folder = paths.preprocessed / planned["data_identifier"]
    cases = sum(is_preprocessed(folder, case) for case in labels)
    sizes = {paths.labels / f"{case}{dataset.file_ending}": file.stat().st_size for case, file in labels.items()}
    # nnU-Net copies a label again only if the original is newer than the copy: it would keep an incomplete copy.
    incomplete = tuple(copy for copy, size in sizes.items() if copy.exists() and copy.stat().st_size != size)
    copied = not incomplete and all(copy.exists() for copy in sizes)
    return State(cases == len(labels) and copied, f"{cases} of {len(labels)} cases", incomplete)


def folds_state(paths: RunPaths) -> State:
    """Done when there is a file of folds; a damaged one may be the user's and is never removed."""
    return State(is_complete(paths.splits))


def fold_state(paths: RunPaths, model: ModelName, fold: int, next_stages: Sequence[str]) -> State:
    """Done when the fold has its final checkpoint and, for all validation cases, scores and probabilities.

    Args:
        next_stages: cascades that refine this model's segmentations.
    """
    folder = paths.fold(model, fold)
    broken = cut_off(folder.checkpoint(name) for name in CHECKPOINTS)
    trained, summary = is_complete(folder.checkpoint()), folder.summary
    cases = paths.validation_cases(fold)
    validated = sum(_validated(paths, model, fold, case, next_stages) for case in cases)
    done = trained and is_complete(summary) and validated == len(cases)
    stale = [summary] if trained and summary.exists() and not done else []
    progress = f"validated {validated} of {len(cases)} cases" if trained else ""
    return State(done, progress, (*broken, *folder.path.glob("*.draft"), *stale))


def best_configuration_state(settings: RunSettings) -> State:
    """Done when the best configuration was chosen among these models and folds, after they were validated."""
    done = current_best_configuration(settings) is not None
    return State(done, left_over=cut_off([settings.paths.best_configuration]))


def cut_off(files: Iterable[Path]) -> tuple[Path, ...]:
    """The files that exist but are incomplete."""
    return tuple(file for file in files if file.exists() and not is_complete(file))


def _validated(paths: RunPaths, model: ModelName, fold: int, case: str, next_stages: Sequence[str]) -> bool:
    folder = paths.fold(model, fold).validation
    files = [folder / f"{case}.npz", folder / f"{case}.pkl"]
    for stage in next_stages:
        older = paths.model(model).next_stage(stage) / f"{case}.npz"
        files.append(older if older.exists() else older.with_suffix(".b2nd"))
    return all(is_complete(file) for file in files)
