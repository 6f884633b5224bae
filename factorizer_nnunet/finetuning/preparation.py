"""Everything about a fine-tuning that is known before anything is written: what fits, what comes from where."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import Tensor

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.dataset_check.raw import RawDataset, check_raw_dataset
from factorizer_nnunet.finetuning.adoption import ENTRY, Adoption, decide
from factorizer_nnunet.finetuning.matching import Matched, Matching, match
from factorizer_nnunet.finetuning.request import FinetuneRequest
from factorizer_nnunet.finetuning.source import SourceModel, opened_source
from factorizer_nnunet.finetuning.weights import Build, adapted, check_shapes, edge_layers, shapes
from factorizer_nnunet.nnunet.environment import nnunet_folder, use_own_trainer
from factorizer_nnunet.nnunet.folds import folds_in_use
from factorizer_nnunet.nnunet.heads import heads
from factorizer_nnunet.nnunet.model_folder import ALL_CASES, FINGERPRINT_FILE, ModelFolder
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import SPLITS_FILE
from factorizer_nnunet.planning.image_geometry import typical_image
from factorizer_nnunet.prediction.model import network_of

# Of the origin in plans: the same weights for the same data. The name of their folder or zip may have changed.
_COMPARED = ("sha256", "fold", "channels", "labels")


@dataclass(frozen=True)
class Preparation:
    """A fine-tuning that has been checked.

    Attributes:
        weights: the model's, for the channels and outputs of the data set.
        origin: the entry ``finetuned_from`` of the plans.
        plans_file: in ``nnUNet_preprocessed``; it may exist from an earlier start of the same fine-tuning.
        target: the model folder in ``nnUNet_results``, likewise.
    """

    request: FinetuneRequest
    raw: RawDataset
    source: SourceModel
    matched: Matched
    adoption: Adoption
    weights: Mapping[str, Tensor]
    name: ModelName
    origin: Mapping[str, Any]
    plans_file: Path
    target: ModelFolder


@contextlib.contextmanager
def prepared(request: FinetuneRequest) -> Iterator[Preparation]:
    """Check model, data set and what exists; the model's files can be read while the block runs.

    Raises:
        UserError: something does not fit; nothing has been written.
    """
    request.check()
    use_own_trainer()
    preprocessed = nnunet_folder("nnUNet_preprocessed", writable=True)
    results = nnunet_folder("nnUNet_results", writable=True)
    raw = check_raw_dataset(request.dataset)
    if any(fold != ALL_CASES for fold in request.folds):
        used, given = preprocessed / raw.name / SPLITS_FILE, raw.folder / SPLITS_FILE  # planning will copy this one
        folds_in_use(given if given.is_file() and not used.exists() else used, [case.name for case in raw.cases])
    opened = opened_source(request.source, request.configuration, request.source_fold, request.checkpoint)
    with opened as source:
        images = typical_image(raw, preprocessed / raw.name / FINGERPRINT_FILE)
        if source.ndim == 3 and min(images.shape) == 1:
            raise UserError(f"{source.title} segments 3D images, those of {raw.name} are 2D. Start from a model of 2d")
        configuration = source.checkpoint.configuration
        try:
            new = heads(source.model.plans.plans, configuration, raw.description)
        except ValueError as error:
            raise UserError(f"{raw.description.path}: {error}. Correct it") from error
        matched = match(source.heads, new, request.maps)
        trainer = request.trainer_name(source, len(new.channels))
        name = ModelName(trainer, request.plans_name(source), configuration)
        yield _checked_for_existing(
            Preparation(
                request,
                raw,
                source,
                matched,
                decide(source, images, matched.channels),
                _adapted_weights(source, trainer, matched, new.regions),
                name,
                _origin(source, matched),
                preprocessed / raw.name / f"{name.plans}.json",
                ModelFolder(results / raw.name / name.folder),
            )
        )


def _adapted_weights(source: SourceModel, trainer: str, matched: Matched, regions: bool) -> Mapping[str, Tensor]:
    old = len(source.heads.channels), len(source.heads.outputs)
    weights = adapted(
        source.checkpoint.weights,
        edge_layers(_builder(source, source.checkpoint.trainer_name), *old),
        matched,
        drops_channels=source.checkpoint.channel_drop,
        old_regions=source.heads.regions,
        new_regions=regions,
    )
    new = len(matched.channels.new), len(matched.outputs.new)
    check_shapes(weights, shapes(_builder(source, trainer), *new), trainer)
    return weights


def _builder(source: SourceModel, trainer: str) -> Build:
    settings = ConfigurationManager({**source.settings, "architecture": dict(source.architecture)})
    return lambda channels, outputs: network_of(
        trainer, source.model.plans, settings, channels, outputs, str(source.place)
    )


def _origin(source: SourceModel, matched: Matched) -> dict[str, Any]:
    return {
        "dataset": source.model.plans.dataset_name,
        "model": source.model.folder.name,
        "fold": source.fold,
        "sha256": source.checkpoint.digest,
        "channels": _by_name(matched.channels),
        "labels": _by_name(matched.outputs),
    }


def _by_name(matching: Matching) -> dict[str, str | None]:
    return {
        name: None if number is None else matching.old[number]
        for name, number in zip(matching.new, matching.sources, strict=True)
    }


def _checked_for_existing(preparation: Preparation) -> Preparation:
    """Accept plans and results of an earlier start of the same fine-tuning, and nothing else."""
    file, target = preparation.plans_file, preparation.target
    fix = "choose another name for the new plans with -p"
    for existing in (file, target.plans_file):
        if not existing.exists():
            continue
        found = load_json_object(existing, f"Remove it, or {fix}").get(ENTRY)
        if not isinstance(found, Mapping) or any(found.get(key) != preparation.origin[key] for key in _COMPARED):
            raise UserError(
                f"{existing} exists and is not of this model with these channels and classes; it is not overwritten: "
                f"{fix}"
            )
    if target.path.exists() and not file.exists():
        raise UserError(f"{target.path} exists, but not its plans {file}. Restore them, or {fix}")
    return preparation
