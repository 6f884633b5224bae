"""``factorizer_postprocessing.json`` in a model's folder: rules, and which labels and checkpoints they belong to.

The file ends with a digest of its content, which tells whether someone has edited it. An edited file is used, but never
overwritten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.dataset_json import LABELS_KEY, REGIONS_ORDER_KEY, DatasetJson
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.postprocessing import LEAVE_OUT
from factorizer_nnunet.postprocessing.rules import Postprocessing, RegionRule

_DIGEST = "sha256"


def read_postprocessing(
    model: ModelFolder, dataset: DatasetJson, checkpoints: Mapping[str, str]
) -> Postprocessing | None:
    """The rules of a model; None without a file, or if it has no rule that changes anything.

    Args:
        model: the folder.
        dataset: its dataset.json.
        checkpoints: SHA-256 of the checkpoints that predict, by fold.

    Raises:
        UserError: the file is damaged, or belongs to other labels or checkpoints.
    """
    file = model.postprocessing_file
    if not file.exists():
        return None
    fix = f"Tune again with factorizer-nnunet tune-postprocessing, or predict without it by {LEAVE_OUT}"
    content = load_json_object(file, fix)
    try:
        rules = {str(name): _rule(entry) for name, entry in content["regions"].items()}
        labels, order, tuned = content["labels"], content["regions_class_order"], dict(content["checkpoints"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error!r}). {fix}") from error
    if (labels, order) != _labels_of(dataset):
        raise UserError(f"{file} is for the labels {labels}, {dataset.path} has {dataset.content[LABELS_KEY]}. {fix}")
    if unknown := [name for name in rules if name not in dataset.regions]:
        raise UserError(f"{file} has a rule for {unknown[0]}, which {dataset.path} does not declare. {fix}")
    if others := [fold for fold, digest in checkpoints.items() if tuned.get(fold) != digest]:
        raise UserError(
            f"{file} was tuned on the predictions of other checkpoints than that of fold {', '.join(others)}: a "
            f"training has ended since, or -f or -chk name others. {fix}"
        )
    used = {name: rule for name, rule in rules.items() if not rule.is_default}
    return Postprocessing(used, dataset) if used else None


def check_not_edited(file: Path) -> None:
    """Check that a file may be replaced.

    Raises:
        UserError: someone has edited it, or it cannot be read.
    """
    if file.exists() and _is_edited(load_json_object(file, "Correct it, or move it away")):
        raise UserError(f"{file} was edited after it was written, and is not overwritten: move it away to tune again")


def write_postprocessing(
    file: Path, rules: Postprocessing, checkpoints: Mapping[str, str], origin: Mapping[str, Any]
) -> None:
    """Write the rules of a model.

    Args:
        file: ``ModelFolder.postprocessing_file``.
        rules: of the regions.
        checkpoints: SHA-256 of the checkpoints that predicted what they were tuned on, by fold.
        origin: how they were tuned and on which predictions, for readers; JSON values.

    Raises:
        UserError: see ``check_not_edited``.
        OSError: it cannot be written.
    """
    check_not_edited(file)
    labels, order = _labels_of(rules.dataset)
    content = {
        **{"regions": {name: asdict(rule) for name, rule in rules.rules.items()}, "labels": labels},
        **{"regions_class_order": order, "checkpoints": dict(checkpoints), **origin},
    }
    write_text_atomically(file, json.dumps({**content, _DIGEST: _digest(content)}, indent=4) + "\n")


def _labels_of(dataset: DatasetJson) -> tuple[Any, Any]:
    return dataset.content.get(LABELS_KEY), dataset.content.get(REGIONS_ORDER_KEY)


def _rule(entry: Mapping[str, Any]) -> RegionRule:
    """Raises KeyError, TypeError or ValueError if an entry is not a rule."""
    if unknown := entry.keys() - {field.name for field in fields(RegionRule)}:
        raise ValueError(f"{sorted(unknown)[0]!r} is not a setting of a region")
    for name, value in entry.items():
        is_switch, kind = isinstance(getattr(RegionRule, name), bool), type(value)
        if (kind is not bool) if is_switch else (kind not in (int, float)):
            raise ValueError(f"{name}: {value!r}")
    rule = RegionRule(**entry)
    if not 0 < rule.threshold < 1 or not 0 <= rule.min_lesion_mm3 < float("inf"):
        raise ValueError(str(dict(entry)))
    return rule


def _is_edited(content: Mapping[str, Any]) -> bool:
    return content.get(_DIGEST) != _digest({key: value for key, value in content.items() if key != _DIGEST})


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
