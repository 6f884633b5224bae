"""What the results of a run were made from, and which of them are stale.

What took long to make or may have been edited is never replaced: it is refused with the choice.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Source, Stamp, in_words, record_sources
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.core.path_names import path_component
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.nnunet import provenance
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.folds import read_folds
from factorizer_nnunet.nnunet.integrity import is_complete
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.plans import resolved_configuration
from factorizer_nnunet.nnunet.provenance import FINGERPRINT, PLANS, Derived
from factorizer_nnunet.running.cascade import data_configuration, previous_stage
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.settings import RunSettings

ACCEPT_OPTION = "--accept-outdated"
_UNKNOWN = Stamp(-1, 0, "")  # of plans whose making was not recorded: they count as edited


def known_stamps(paths: RunPaths) -> dict[Path, Stamp]:
    """Stamps that the check of all voxels took and that still fit, so that files need not be read again."""
    from factorizer_nnunet.dataset_check.record import RECORD_FILE, recorded_stamps  # imports SimpleITK

    return recorded_stamps(paths.preprocessed / RECORD_FILE)


def fingerprint(paths: RunPaths) -> Derived:
    """The fingerprint."""
    return provenance.fingerprint(paths.preprocessed, _raw_cases(paths)[1])


def preprocessed_data(paths: RunPaths, plans: str, configuration: str) -> Derived:
    """The preprocessed data of a configuration that the plans have."""
    content = read_complete_json(paths.plans(plans)) or {}
    data_folder(paths, plans, configuration)
    cases, sources = _raw_cases(paths)
    return provenance.preprocessed_data(paths.preprocessed, content, configuration, cases, sources)


def _raw_cases(paths: RunPaths) -> tuple[list[str], dict[str, Source]]:
    """Names of all training cases, and what fingerprint and preprocessed data are made from."""
    dataset = paths.raw_dataset()
    cases = dataset.training_cases(paths.raw)
    return list(cases), provenance.raw_sources(paths.raw, dataset, cases.values())


def data_folder(paths: RunPaths, plans: str, configuration: str) -> Path:
    """The folder of a configuration's preprocessed data.

    Raises:
        UserError: the plans do not name it, or lead outside.
    """
    file = paths.plans(plans)
    settings = resolved_configuration(read_complete_json(file) or {}, configuration, str(file))
    where = f"data_identifier of {configuration} in {file}"
    return paths.preprocessed / path_component(settings.get("data_identifier"), where)


def plans_changes(paths: RunPaths, plans: str) -> tuple[bool, bool]:
    """Whether fingerprint or ``dataset.json`` have changed since planning, and whether the plans have been edited."""
    made = provenance.plans_made(paths.plans(plans))
    changed = made.changed_sources() or {}
    declared = [provenance.declared_values(one) for one in (paths.raw_dataset(), DatasetJson.read(paths.dataset_json))]
    is_edited = PLANS in changed or not made.record.exists()
    return FINGERPRINT in changed or declared[0] != declared[1], is_edited


def note_plans_of_fingerprint(paths: RunPaths, plans: str) -> None:
    """Before a fingerprint is replaced: record that plans which another command made belong to the present one."""
    made = provenance.plans_made(paths.plans(plans))
    if paths.plans(plans).is_file() and paths.fingerprint.is_file() and not made.record.exists():
        _record_as_edited(paths, plans)


def _record_as_edited(paths: RunPaths, plans: str) -> None:
    """Record that plans belong to the present fingerprint, but not what they were."""
    record = provenance.plans_made(paths.plans(plans)).record
    record_sources(record, {FINGERPRINT: paths.fingerprint, PLANS: _UNKNOWN}, {})


def training(paths: RunPaths, model: ModelName, fold: int) -> Derived | None:
    """A finished training; None if it is not finished, or its plans or folds are not there."""
    folder = paths.fold(model, fold)
    configuration = data_configuration(model.configuration)
    folds = read_folds(paths.splits)
    planned = configuration in (read_complete_json(paths.plans(model.plans)) or {}).get("configurations", {})
    if not planned or fold >= len(folds) or not is_complete(folder.checkpoint()):
        return None
    data, split = data_folder(paths, model.plans, configuration), folds[fold]
    previous = previous_stage(model)
    segmentations = None if previous is None else paths.model(previous).next_stage(model.configuration)
    return provenance.trained_fold(folder, provenance.split_sources(data, split["train"], split["val"], segmentations))


def record_training(paths: RunPaths, model: ModelName, fold: int) -> None:
    """Record what a finished training was made from, if the trainer did not."""
    made = training(paths, model, fold)
    if made is not None and made.changed_sources() is None:
        made.write_record()


def stale_training(paths: RunPaths, model: ModelName, fold: int) -> str | None:
    """Why a finished training must not be used as it is, with the choice; None if it may.

    Either its preprocessed cases have changed, or the raw files of these cases have, so that they are about to.
    """
    made = training(paths, model, fold)
    if made is None:
        return None
    changes = made.changed_sources() or _changes_of_raw(paths, model, fold)
    if not changes:
        return None
    return (
        f"{paths.fold(model, fold).path} was trained on what has changed since: {first_few(in_words(changes), 3)}. It "
        "is neither used nor removed: train in a new nnUNet_results, move the fold away, or use it as it is with "
        f"{ACCEPT_OPTION}"
    )


def _changes_of_raw(paths: RunPaths, model: ModelName, fold: int) -> dict[str, str]:
    """Changes since preprocessing of what a fold's cases are made from."""
    data = preprocessed_data(paths, model.plans, data_configuration(model.configuration))
    changes = data.changed_sources()
    if not changes:
        return {}
    split = read_folds(paths.splits)[fold]
    used = {*split["train"], *split["val"]}
    others = {
        provenance.raw_name(file, paths.raw)
        for case in paths.raw_dataset().training_cases(paths.raw).values()
        if case.name not in used
        for file in (case.label, *case.images)
    }
    return {name: change for name, change in changes.items() if name not in others}


def accept_outdated(settings: RunSettings) -> list[str]:
    """Let stale plans and trainings count as up to date, as the user asked; returns their paths."""
    paths, accepted = settings.paths, []
    for plans in settings.plans:
        if paths.plans(plans).is_file() and paths.fingerprint.is_file() and plans_changes(paths, plans)[0]:
            _record_as_edited(paths, plans)
            accepted.append(str(paths.plans(plans)))
    for model, fold in settings.trainings:
        with contextlib.suppress(UserError):  # what cannot be read fails its own step
            made = training(paths, model, fold)
            if made is not None and made.changed_sources():
                made.write_record()
                accepted.append(str(paths.fold(model, fold).path))
    return accepted
