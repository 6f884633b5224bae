"""Do the files of a model say what its folds were trained with?

nnU-Net's checkpoints contain the plans and the ``dataset.json`` of their training; predictions are made by the files in
the model's folder. Where these were changed since, the network gets other images than it knows, or its outputs other
names, and nothing else would tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.checkpoint import FoldCheckpoint
from factorizer_nnunet.nnunet.dataset_json import CHANNELS_KEY, LABELS_KEY, REGIONS_ORDER_KEY
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.nnunet.plans import resolved_configuration
from factorizer_nnunet.prediction.description import ModelDescription

# What decides on the images that the network gets, and on the network. Patch size, resampling and the like may change.
_OF_PLANS = ("transpose_forward", "foreground_intensity_properties_per_channel")
_OF_CONFIGURATION = ("spacing", "normalization_schemes", "use_mask_for_norm", "preprocessor_name", "architecture")


def check_trained_with(
    checkpoint: FoldCheckpoint, file: Path, folder: ModelFolder, description: ModelDescription
) -> None:
    """Compare what a checkpoint was trained with and the model's files.

    Args:
        checkpoint: one of the folds; those of other programs may lack plans, and nothing is compared.
        file: of the checkpoint, for messages.
        folder: of the model.
        description: from the model's files.

    Raises:
        UserError: they differ in what a prediction depends on; names the file, the entry and both values.
    """
    name, content = checkpoint.configuration, description.plans.plans
    differences = [
        *_of_plans(checkpoint.plans, content, name, folder.plans_file),
        *_of_dataset(checkpoint.dataset, description.dataset.content, folder.dataset_file),
    ]
    for where, entry, before, after in differences:
        key, trained, now = _first_difference(entry, before, after)
        raise UserError(
            f"{where} was changed since {file} was trained: {key} was {_short(trained)}, now it is {_short(now)}. "
            "Restore it as the training left it, or train again"
        )


def _of_plans(
    trained: Mapping[str, Any], now: Mapping[str, Any], configuration: str, file: Path
) -> Iterator[tuple[Path, str, Any, Any]]:
    if configuration not in _object(trained, "configurations"):
        return
    before = resolved_configuration(trained, configuration, "the plans of the training")
    after = resolved_configuration(now, configuration, str(file))
    pairs = [*((key, trained, now) for key in _OF_PLANS), *((key, before, after) for key in _OF_CONFIGURATION)]
    for key, old, new in pairs:
        if key in old and _comparable(old[key]) != _comparable(new.get(key)):
            yield file, key, old[key], new.get(key)


def _of_dataset(trained: Mapping[str, Any], now: Mapping[str, Any], file: Path) -> Iterator[tuple[Path, str, Any, Any]]:
    """Other names are harmless, the same names for other values are not."""
    labels = [_object(one, LABELS_KEY) for one in (trained, now)]
    channels = [{str(name): number for number, name in _object(one, CHANNELS_KEY).items()} for one in (trained, now)]
    for key, (before, after) in ((LABELS_KEY, labels), (CHANNELS_KEY, channels)):
        if any(_comparable(before[name]) != _comparable(after[name]) for name in before.keys() & after.keys()):
            yield file, key, trained[key], now[key]
    order, new = trained.get(REGIONS_ORDER_KEY), now.get(REGIONS_ORDER_KEY)
    if order is not None and _comparable(order) != _comparable(new):
        yield file, REGIONS_ORDER_KEY, order, new


def _object(content: Mapping[str, Any], key: str) -> Mapping[Any, Any]:
    """An entry that is an object in JSON; empty if it is missing or something else."""
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def _comparable(value: Any) -> str:
    """Equal for tuples and lists, and for numbers before and after JSON."""
    return json.dumps(value, sort_keys=True, default=str)


def _first_difference(key: str, before: Any, after: Any) -> tuple[str, Any, Any]:
    """The first entry that differs within objects, such as spacing or architecture.arch_kwargs.head_dim."""
    while isinstance(before, Mapping) and isinstance(after, Mapping):
        names = [*before, *(name for name in after if name not in before)]
        name = next(one for one in names if _comparable(before.get(one)) != _comparable(after.get(one)))
        key, before, after = f"{key}.{name}", before.get(name), after.get(name)
    return key, before, after


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 120 else f"{text[:117]}..."
