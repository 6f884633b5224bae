"""The settings of the last run of each name over a data set, for ``status``. What is done is not kept here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.path_names import path_component
from factorizer_nnunet.nnunet.environment import PREPROCESSED_VARIABLE, RAW_VARIABLE
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.running.paths import NAMED_RUNS_FOLDER, REQUEST_FILE, RUN_FOLDER, Folders
from factorizer_nnunet.running.settings import Prediction, RunSettings


def write_request(settings: RunSettings) -> None:
    """Keep the settings in the run's folder."""
    content = json.dumps(asdict(settings), indent=4, default=str)
    write_text_atomically(settings.paths.request, content + "\n")


def find_requests(results: Path, dataset: str, name: str | None = None) -> list[Path]:
    """The files with the settings of all runs over a data set, that without a name first.

    Args:
        results: nnUNet_results.
        dataset: ID or name of the data set.
        name: of the only run to look for; None finds all.

    Raises:
        UserError: no run of this name exists below ``results``, or several data sets have this ID.
    """
    folder = f"Dataset{int(dataset):03d}_*" if dataset.isdecimal() else dataset
    found = [path for path in _requests(results, folder) if name is None or name_of_run(path) == name]
    datasets = sorted({_dataset_folder(path).name for path in found})
    if len(datasets) != 1:
        runs = list(dict.fromkeys(map(_described, _requests(results, "*"))))
        known = (
            f"there are runs of {', '.join(runs)}"
            if runs
            else "status shows runs of factorizer-nnunet run, not trainings by nnUNetv2_train: their progress is in "
            "training_log_*.txt and progress.png of their fold"
        )
        if datasets:
            raise UserError(f"{len(datasets)} data sets with runs have the ID {dataset} in {results}: give a name")
        wanted = f"no run has the ID or name {dataset}" + ("" if name is None else f" and --name {name}")
        raise UserError(f"{wanted} in {results}; {known}")
    return found


def read_request(file: Path) -> RunSettings:
    """Read the settings of a run.

    Raises:
        UserError: the file is damaged.
    """
    fix = "Start the run again, which rewrites it"
    content = load_json_object(file, fix)
    try:
        path_component(content["dataset"], "dataset")
        settings = _settings(content)
        folders = _folders_now(settings.folders, _dataset_folder(file).parent)
        return replace(settings, folders=folders, name=name_of_run(file))
    except UserError as error:  # about a name in it
        raise UserError(f"{file}: {error}. {fix}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not as this version writes it ({error!r}). {fix}") from error


def _folders_now(recorded: Folders, results: Path) -> Folders:
    """The folders of a run whose results lie here. If they were copied or moved, so were probably the others."""
    if results == recorded.results:
        return recorded
    raw = Path(os.environ.get(RAW_VARIABLE, recorded.raw))
    preprocessed = Path(os.environ.get(PREPROCESSED_VARIABLE, recorded.preprocessed))
    return Folders(raw, preprocessed, results)


def name_of_run(file: Path) -> str | None:
    """The name of the run with these settings: that of its folder; None for the run without a name."""
    folder = file.parent
    return folder.name if folder.parent.name == NAMED_RUNS_FOLDER else None


def _requests(results: Path, folder: str) -> Iterator[Path]:
    for pattern in (RUN_FOLDER, f"{NAMED_RUNS_FOLDER}/*"):
        yield from sorted(results.glob(f"{folder}/{pattern}/{REQUEST_FILE}"))


def _dataset_folder(file: Path) -> Path:
    return file.parents[1] if name_of_run(file) is None else file.parents[2]


def _described(file: Path) -> str:
    name = name_of_run(file)
    return _dataset_folder(file).name + ("" if name is None else f" --name {name}")


def _settings(content: dict) -> RunSettings:
    prediction = content.pop("prediction")
    models = tuple(ModelName(**model) for model in content.pop("models"))
    folders = Folders(**{name: Path(path) for name, path in content.pop("folders").items()})
    if prediction is not None:
        paths = {key: prediction[key] and Path(prediction[key]) for key in ("images", "output", "references")}
        prediction = Prediction(**{**prediction, **paths})
    folds = tuple(content.pop("folds"))
    if not all(type(fold) is int for fold in folds):
        raise ValueError(f"folds {folds}")
    return RunSettings(folders=folders, models=models, folds=folds, prediction=prediction, **content)
