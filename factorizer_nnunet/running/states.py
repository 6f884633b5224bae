"""How far preparation, training and the choice of the best model are, read from what nnU-Net leaves on disk.

nnU-Net writes most files in place, so that a killed command leaves incomplete ones. A step is done when the file that
its command writes last is complete and was made from its sources as they are; files that hinder another attempt are
listed, to be set aside. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from factorizer_nnunet.core.file_stamps import stamp_of
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.core.wording import duration
from factorizer_nnunet.evaluation.subset_scores import FILE as SUBSETS_FILE
from factorizer_nnunet.evaluation.subset_scores import read_subset_scores
from factorizer_nnunet.nnunet.integrity import Completeness, completeness, is_complete, is_preprocessed
from factorizer_nnunet.nnunet.label_copies import outdated_label_copies
from factorizer_nnunet.nnunet.model_folder import CHECKPOINTS
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.plans import resolved_configuration
from factorizer_nnunet.nnunet.validation_files import validation_scores
from factorizer_nnunet.running.best_configuration import current_best_configuration
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.sources import (
    ACCEPT_OPTION,
    data_folder,
    fingerprint,
    plans_changes,
    preprocessed_data,
    stale_training,
)
from factorizer_nnunet.running.step import State


def fingerprint_state(paths: RunPaths) -> State:
    """Done when the fingerprint is complete and no image or label has changed since."""
    if not is_complete(paths.fingerprint):
        return State(False, incomplete=cut_off([paths.fingerprint]))
    reason = fingerprint(paths).stale_reason()
    return State(True) if reason is None else State(False, reason, outdated=(paths.fingerprint,))


def plans_state(paths: RunPaths, plans: str) -> State:
    """Done when planning has copied ``dataset.json`` and written the plans, which come last, from this fingerprint."""
    file = paths.plans(plans)
    files = [paths.dataset_json, file]
    if not all(is_complete(one) for one in files):
        return State(False, incomplete=cut_off(files))
    is_stale, is_edited = plans_changes(paths, plans) if is_complete(paths.fingerprint) else (False, False)
    if is_stale and is_edited:
        return State(
            False,
            blocked=f"{file} was made from a fingerprint or dataset.json that has changed since, and was edited or "
            f"made by another command, so it is kept. Move it away to plan again, or use it with {ACCEPT_OPTION}",
        )
    return State(False, "fingerprint or dataset.json have changed", outdated=(file,)) if is_stale else State(True)


def preprocessed_state(paths: RunPaths, plans: str, name: str) -> State:
    """Done when every case is preprocessed from its present files and all labels are copied, which comes last."""
    file = paths.plans(plans)
    if not resolved_configuration(read_complete_json(file) or {}, name, str(file)):
        return State(False)
    dataset = paths.raw_dataset()
    cases = dataset.training_cases(paths.raw)
    folder = data_folder(paths, plans, name)
    done = sum(is_preprocessed(folder, case) for case in cases)
    # nnU-Net copies a label again only if the original is newer than the copy: it would keep others.
    outdated = tuple(outdated_label_copies(cases.values(), paths.preprocessed, dataset.file_ending))
    copied = not outdated and all((paths.labels / f"{case}{dataset.file_ending}").exists() for case in cases)
    if done == len(cases) and (reason := preprocessed_data(paths, plans, name).stale_reason()) is not None:
        return State(False, f"0 of {len(cases)} cases: {reason}", outdated=outdated)
    return State(done == len(cases) and copied, f"{done} of {len(cases)} cases", outdated=outdated)


def folds_state(paths: RunPaths) -> State:
    """Done when there is a file of folds; a damaged one may be the user's and is never removed."""
    return State(is_complete(paths.splits))


def fold_state(settings: RunSettings, model: ModelName, fold: int, next_stages: Sequence[str]) -> State:
    """Done when the fold has its final checkpoint and, for all validation cases, scores and probabilities.

    Args:
        next_stages: cascades that refine this model's segmentations.
    """
    paths = settings.paths
    folder = paths.fold(model, fold)
    stale = None if settings.accept_outdated else stale_training(paths, model, fold)
    if stale is not None:
        return State(False, blocked=stale)
    incomplete = cut_off([*(folder.checkpoint(name) for name in CHECKPOINTS), folder.summary])
    drafts = tuple(folder.path.glob("*.draft"))
    if not is_complete(folder.checkpoint()):
        return State(False, incomplete=incomplete, drafts=drafts)
    cases = paths.validation_cases(fold)
    validated = sum(_validated(paths, model, fold, case, next_stages) for case in cases)
    scored = is_complete(folder.summary)
    ending = paths.raw_dataset().file_ending
    changed = validation_scores(folder, paths.labels, ending).stale_reason() if scored else None
    done = scored and changed is None and validated == len(cases)
    outdated = (folder.summary,) if scored and not done else ()
    detail = f"validated {validated} of {len(cases)} cases" if changed is None else f"to be scored again: {changed}"
    return State(done, detail, incomplete, outdated, drafts)


def lacks_only_scores(settings: RunSettings, model: ModelName, fold: int) -> bool:
    """Whether a trained fold has all segmentations of its validation, but no scores."""
    paths = settings.paths
    folder, ending = paths.fold(model, fold), paths.raw_dataset().file_ending
    if folder.summary.exists() or not is_complete(folder.checkpoint()):
        return False
    next_stages = settings.next_stages(model)
    return all(
        (folder.validation / f"{case}{ending}").is_file() and _validated(paths, model, fold, case, next_stages)
        for case in paths.validation_cases(fold)
    )


def channel_subsets_state(paths: RunPaths, model: ModelName, fold: int) -> State:
    """Done when each complete validation case was predicted with every subset of channels, by the present weights."""
    folder, absent = paths.fold(model, fold), paths.raw_dataset().absent_channels
    cases = [case for case in paths.validation_cases(fold) if case not in absent]
    scores = read_subset_scores(folder.path / SUBSETS_FILE)
    checkpoint = folder.checkpoint()
    if scores is None or not is_complete(checkpoint) or scores.checkpoint != stamp_of(checkpoint).sha256:
        return State(False)
    predicted = [scores.cases[case].seconds for case in cases if case in scores.cases]
    left = len(cases) - len(predicted)
    time = f", about {duration(left * sum(predicted) / len(predicted))} left" if left and predicted else ""
    return State(not left, f"{len(predicted)} of {len(cases)} cases{time}")


def best_configuration_state(settings: RunSettings) -> State:
    """Done when the best configuration was chosen among these models and folds, after they were validated."""
    done = current_best_configuration(settings) is not None
    return State(done, incomplete=cut_off([settings.paths.last_best_configuration]))


def cut_off(files: Iterable[Path]) -> tuple[Path, ...]:
    """The files that exist but are incomplete."""
    return tuple(file for file in files if completeness(file) is Completeness.CUT_OFF)


def _validated(paths: RunPaths, model: ModelName, fold: int, case: str, next_stages: Sequence[str]) -> bool:
    folder = paths.fold(model, fold).validation
    files = [folder / f"{case}.npz", folder / f"{case}.pkl"]
    for stage in next_stages:
        older = paths.model(model).next_stage(stage) / f"{case}.npz"
        files.append(older if older.exists() else older.with_suffix(".b2nd"))
    return all(is_complete(file) for file in files)
