"""How far each step is, read from what nnU-Net leaves on disk; nothing here writes.

nnU-Net writes most files in place, so that a killed command leaves halves. A step is done when the file that its
command writes last is whole and belongs to all the others; what hinders another attempt is listed as left over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.nnunet.integrity import is_complete, is_preprocessed, newest, oldest
from factorizer_nnunet.running.best_configuration import BestConfiguration, read_best_configuration
from factorizer_nnunet.running.dataset_files import (
    configuration,
    image_channels,
    raw_dataset_json,
    training_labels,
    validation_cases,
)
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.settings import RunModel, Prediction, RunSettings

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
PREDICTION_RECORD = "predict_from_raw_data_args.json"  # written as a prediction begins
OTHER_FILES = ("dataset.json", "plans.json", "summary.json")  # beside segmentations that were merged or postprocessed


@dataclass(frozen=True)
class State:
    """Whether a step is done, how far it is in words, and files to be removed before it is begun again."""

    done: bool
    progress: str = ""
    left_over: tuple[Path, ...] = ()


def fingerprint_state(paths: RunPaths) -> State:
    """The fingerprint is one file, cut off or not."""
    return State(is_complete(paths.fingerprint), left_over=_cut_off([paths.fingerprint]))


def plans_state(paths: RunPaths, plans: str) -> State:
    """Planning copies ``dataset.json`` and writes the plans last."""
    files = [paths.dataset_json, paths.plans(plans)]
    return State(all(is_complete(file) for file in files), left_over=_cut_off([*files, paths.splits]))


def preprocessed_state(paths: RunPaths, plans: str, name: str) -> State:
    """Every case has its data, segmentation and, written last, properties; labels are copied after all cases."""
    settings = configuration(paths, plans, name)
    if settings is None:
        return State(False)
    labels = training_labels(paths)
    folder = paths.preprocessed / settings["data_identifier"]
    cases = sum(is_preprocessed(folder, case) for case in labels)
    ending = raw_dataset_json(paths)["file_ending"]
    sizes = {paths.labels / f"{case}{ending}": file.stat().st_size for case, file in labels.items()}
    # A copy that was cut off is newer than its original, and nnU-Net then takes it for the better one.
    cut_off = tuple(copy for copy, size in sizes.items() if copy.exists() and copy.stat().st_size != size)
    copied = not cut_off and all(copy.exists() for copy in sizes)
    return State(cases == len(labels) and copied, f"{cases} of {len(labels)} cases", cut_off)


def folds_state(paths: RunPaths) -> State:
    """The folds are one file."""
    return State(is_complete(paths.splits), left_over=_cut_off([paths.splits]))


def fold_state(paths: RunPaths, model: RunModel, fold: int, next_stages: Sequence[str]) -> State:
    """A fold is done when its last checkpoint and the scores of its validation are there, with all probabilities.

    Args:
        next_stages: cascades that refine this model's segmentations.
    """
    folder = paths.fold(model, fold)
    broken = [path for name in CHECKPOINTS if (path := folder / name).exists() and not is_complete(path)]
    trained, summary = is_complete(paths.checkpoint(model, fold)), paths.fold_summary(model, fold)
    cases = validation_cases(paths, fold) or []
    validated = sum(_validated(paths, model, fold, case, next_stages) for case in cases)
    done = trained and is_complete(summary) and validated == len(cases)
    stale = [summary] if trained and summary.exists() and not done else []
    progress = f"validated {validated} of {len(cases)} cases" if trained else ""
    return State(done, progress, (*broken, *folder.glob("*.draft"), *stale))


def choice_state(settings: RunSettings, paths: RunPaths) -> State:
    """The choice is one file; it must be among these models and folds, and later than their scores."""
    summaries = [paths.fold_summary(model, fold) for model in settings.models for fold in settings.folds]
    choice = read_best_configuration(paths)
    fits = (
        choice is not None
        and set(choice.considered) == set(settings.models)
        and choice.folds == settings.folds
        and choice.postprocessing.is_file()
        and paths.choice.stat().st_mtime >= newest(summaries)
    )
    return State(fits, left_over=_cut_off([paths.choice]))


def prediction_state(settings: RunSettings, paths: RunPaths) -> State:
    """Every chosen model has segmentations and probabilities of all these images, later than its checkpoints."""
    choice = _fitting_choice(settings, paths)
    if choice is None or settings.prediction is None:
        return State(False)
    cases = test_cases(settings)
    ending = raw_dataset_json(paths)["file_ending"]
    done, stale = 0, []
    for model in choice.stages:
        folder = paths.before_merging(settings.prediction.output) / model.name
        record = folder / PREDICTION_RECORD
        trained = newest(paths.checkpoint(model, fold) for fold in choice.folds)
        if record.exists() and not _predicted_as_asked(record, settings.prediction, trained):
            stale += [file for file in folder.iterdir() if file.is_file()]
            continue
        for case in cases:
            files = [folder / f"{case}{end}" for end in _prediction_endings(choice, model, ending)]
            if all(is_complete(file) for file in files):
                done += 1
            else:
                stale += [file for file in files if file.exists() and not is_complete(file)]
    total = len(choice.stages) * len(cases)
    return State(done == total, f"{done} of {total} cases", tuple(stale))


def ensemble_state(settings: RunSettings, paths: RunPaths) -> State:
    """One model needs no merging; else the merged segmentations appear as a whole folder."""
    choice = _fitting_choice(settings, paths)
    if choice is None or settings.prediction is None:
        return State(False)
    if len(choice.models) == 1:
        return State(True, "one model, nothing to merge")
    before = paths.before_merging(settings.prediction.output)
    return _whole_folder(settings, paths, before / "ensemble", [before / model.name for model in choice.models])


def final_state(settings: RunSettings, paths: RunPaths) -> State:
    """The final segmentations appear as a whole folder."""
    choice = _fitting_choice(settings, paths)
    if choice is None or settings.prediction is None:
        return State(False)
    source = before_postprocessing(settings, paths, choice)
    return _whole_folder(settings, paths, settings.prediction.output, [source])


def own_files(settings: RunSettings) -> list[Path]:
    """All files that may lie in the folder of the final segmentations, whether they are there or not."""
    return [*_final_files(settings), *(settings.prediction.output / name for name in OTHER_FILES)]


def scores_state(settings: RunSettings, paths: RunPaths) -> State:
    """Scores of the final segmentations are one file, later than these."""
    if settings.prediction is None:
        return State(False)
    scores = settings.prediction.output / "summary.json"
    done = is_complete(scores) and scores.stat().st_mtime >= newest(_final_files(settings))
    return State(done, left_over=_cut_off([scores]))


def before_postprocessing(settings: RunSettings, paths: RunPaths, choice: BestConfiguration) -> Path:
    """The folder of segmentations that postprocessing takes."""
    before = paths.before_merging(settings.prediction.output)
    return before / (choice.models[0].name if len(choice.models) == 1 else "ensemble")


def test_cases(settings: RunSettings) -> list[str]:
    """The cases among the test images."""
    ending = raw_dataset_json(RunPaths(settings.folders, settings.dataset))["file_ending"]
    return list(image_channels(settings.prediction.images, ending))


def _fitting_choice(settings: RunSettings, paths: RunPaths) -> BestConfiguration | None:
    return read_best_configuration(paths) if choice_state(settings, paths).done else None


def _predicted_as_asked(record: Path, prediction: Prediction, trained: float) -> bool:
    """Whether predictions are of these images, with this mirroring, and begun after the folds were trained."""
    content = read_complete_json(record) or {}
    asked = {"images": str(prediction.images), "use_mirroring": prediction.mirroring}
    return record.stat().st_mtime >= trained and all(content.get(key, value) == value for key, value in asked.items())


def _prediction_endings(choice: BestConfiguration, model: RunModel, file_ending: str) -> Iterator[str]:
    yield file_ending
    if len(choice.models) > 1 and model in choice.models:  # merged from probabilities
        yield from (".npz", ".pkl")


def _final_files(settings: RunSettings) -> list[Path]:
    ending = raw_dataset_json(RunPaths(settings.folders, settings.dataset))["file_ending"]
    return [settings.prediction.output / f"{case}{ending}" for case in test_cases(settings)]


def _whole_folder(settings: RunSettings, paths: RunPaths, folder: Path, sources: Sequence[Path]) -> State:
    """A folder that appears at once, made from the same cases' segmentations in other folders."""
    ending = raw_dataset_json(paths)["file_ending"]
    cases = test_cases(settings)
    files = [folder / f"{case}{ending}" for case in cases]
    made_from = [source / f"{case}{ending}" for source in sources for case in cases]
    done = all(file.exists() for file in files) and oldest(files) >= newest([*made_from, paths.choice])
    own = [*files, *(folder / name for name in OTHER_FILES)]
    return State(done, left_over=() if done else tuple(file for file in own if file.exists()))


def _validated(paths: RunPaths, model: RunModel, fold: int, case: str, next_stages: Sequence[str]) -> bool:
    folder = paths.validation(model, fold)
    files = [folder / f"{case}.npz", folder / f"{case}.pkl"]
    for stage in next_stages:
        older = paths.next_stage(model, stage) / f"{case}.npz"
        files.append(older if older.exists() else older.with_suffix(".b2nd"))
    return all(is_complete(file) for file in files)


def _cut_off(files: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(file for file in files if file.exists() and not is_complete(file))
