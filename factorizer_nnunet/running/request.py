"""The settings of the last run over a data set, kept for ``status``. What is done is not kept here."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.path_names import path_component
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.running.paths import REQUEST_FILE, RUN_FOLDER, Folders
from factorizer_nnunet.running.settings import Prediction, RunSettings


def write_request(settings: RunSettings) -> None:
    """Keep the settings in the run's folder."""
    content = json.dumps(asdict(settings), indent=4, default=str)
    write_text_atomically(settings.paths.request, content + "\n")


def read_request(results: Path, dataset: str) -> RunSettings:
    """Read the settings of the last run over a data set, given by ID or name.

    Raises:
        UserError: there is none below ``results``, or several data sets have this ID.
    """
    name = f"Dataset{int(dataset):03d}_*" if dataset.isdecimal() else dataset
    found = sorted(results.glob(f"{name}/{RUN_FOLDER}/{REQUEST_FILE}"))
    if len(found) != 1:
        runs = sorted(path.parent.parent.name for path in results.glob(f"*/{RUN_FOLDER}/{REQUEST_FILE}"))
        known = f"there are runs of {', '.join(runs)}" if runs else "factorizer-nnunet run starts one"
        count = f"{len(found)} data sets with runs have" if found else "no run has"
        raise UserError(f"{count} the ID or name {dataset} in {results}; {known}")
    fix = "Start the run again, which rewrites it"
    content = load_json_object(found[0], fix)
    try:
        path_component(content["dataset"], "dataset")
        settings = _settings(content)
        # The folder may have been copied or moved since: what is shown is what lies here.
        return replace(settings, folders=replace(settings.folders, results=results))
    except UserError as error:  # about a name in it
        raise UserError(f"{found[0]}: {error}. {fix}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{found[0]} is not as this version writes it ({error!r}). {fix}") from error


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
