"""The regions to score: the labels or regions of dataset.json, or those of a challenge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.schemes import Labels, Scheme

BACKGROUND, IGNORE = "background", "ignore"


@dataclass(frozen=True)
class Regions:
    """Regions by name, and the other values that label files may contain."""

    labels: Mapping[str, Labels]  # label values of each region
    keys: Mapping[str, str]  # the name of each region in nnU-Net's summary.json
    declared: frozenset[int] | None  # values that may occur, including 0; None: any
    ignore: int | None = None  # label of voxels that are not scored


def regions_of(dataset_json: Mapping[str, Any] | None, scheme: Scheme, found: frozenset[int]) -> Regions:
    """Choose the regions to score.

    Args:
        dataset_json: content of dataset.json; None makes each label value found in the files a region, unless the
            scheme has regions.
        scheme: its own regions take precedence; they get the names of dataset.json if that declares the same regions.
        found: label values of the files; used only without `dataset_json`.

    Raises:
        UserError: dataset.json declares no labels, or regions that contradict those of the scheme.
    """
    if dataset_json is None:
        labels = dict(scheme.regions or {str(value): (value,) for value in sorted(found - {0})})
        if not labels:
            raise UserError("all label files are empty: give a dataset.json that names labels with --dataset-json")
        known = None if scheme.regions is None else frozenset({0}.union(*labels.values()))
        return Regions(labels, _keys(labels), known)
    entries = dataset_json.get("labels")
    if not isinstance(entries, dict) or not all(_is_entry(value) for value in entries.values()):
        raise UserError(
            f'dataset.json: labels must map names to integers or lists of them, such as {{"tumor": 1}}, not {entries}'
        )
    ignore = entries.get(IGNORE)
    own = {name: value for name, value in entries.items() if name not in (BACKGROUND, IGNORE)}
    labels = {name: tuple(value) if isinstance(value, list | tuple) else (value,) for name, value in own.items()}
    declared = frozenset({0}.union(*labels.values()) | ({ignore} if ignore is not None else set()))
    has_regions = any(len(values) > 1 for values in labels.values())
    keys = {name: str(tuple(v) if has_regions and isinstance(v, list) else labels[name][0]) for name, v in own.items()}
    if scheme.regions is not None:
        _check_regions(scheme.key, scheme.regions, labels)
        names = {frozenset(values): name for name, values in labels.items()}
        renamed: dict[str, Labels] = {}
        for name, values in scheme.regions.items():
            own_name = names.get(frozenset(values))
            renamed[own_name or name] = labels[own_name] if own_name else values
        return Regions(renamed, _keys(renamed) | {n: k for n, k in keys.items() if n in renamed}, declared, ignore)
    return Regions(labels, keys, declared, ignore)


def _keys(labels: Mapping[str, Labels]) -> dict[str, str]:
    return {name: str(values[0] if len(values) == 1 else values) for name, values in labels.items()}


def _is_entry(value: object) -> bool:
    numbers = value if isinstance(value, list | tuple) else [value]
    return bool(numbers) and all(isinstance(number, int) for number in numbers)


def _check_regions(scheme: str, regions: Mapping[str, Labels], declared: Mapping[str, Labels]) -> None:
    known = {frozenset(values) for values in regions.values()}
    wrong = {name: values for name, values in declared.items() if len(values) > 1 and frozenset(values) not in known}
    if wrong:
        raise UserError(
            f"{scheme} scores {_shown(regions)}, but dataset.json declares {_shown(wrong)}, so its label values have "
            "another meaning. Use another --scheme, or convert both folders to the challenge's label values first "
            "(factorizer-nnunet to-challenge)"
        )


def _shown(regions: Mapping[str, Labels]) -> str:
    return ", ".join(f"{name} = {'+'.join(map(str, values))}" for name, values in regions.items())
