"""What is scored: the labels or regions that dataset.json declares, or those of a challenge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.schemes import Labels, Scheme

BACKGROUND, IGNORE = "background", "ignore"


@dataclass(frozen=True)
class Regions:
    """Regions by name, and what else label files may hold."""

    labels: Mapping[str, Labels]  # values of each region
    keys: Mapping[str, str]  # what nnU-Net calls each region in its summary.json
    declared: frozenset[int] | None  # values that may occur, 0 included; None: any
    ignore: int | None = None  # value of voxels that are not to be scored


def regions_of(dataset_json: Mapping[str, Any] | None, scheme: Scheme, found: frozenset[int]) -> Regions:
    """Decide what is scored.

    Args:
        dataset_json: content of dataset.json; None takes each label value found in the files as a region, unless the
            scheme has regions.
        scheme: its own regions win; they take the names of dataset.json where that declares the same ones.
        found: label values of the files; only looked at without `dataset_json`.

    Raises:
        UserError: dataset.json declares no labels, or regions that contradict the scheme's.
    """
    if dataset_json is None:
        labels = dict(scheme.regions or {str(value): (value,) for value in sorted(found - {0})})
        if not labels:
            raise UserError("all label files are empty, and without dataset.json nobody knows what they might hold")
        known = None if scheme.regions is None else frozenset({0}.union(*labels.values()))
        return Regions(labels, _keys(labels), known)
    entries = dataset_json.get("labels")
    if not isinstance(entries, dict) or not all(_is_entry(value) for value in entries.values()):
        raise UserError(
            f'dataset.json: labels must map names to numbers or lists of them, such as {{"tumor": 1}}, not {entries}'
        )
    ignore = entries.get(IGNORE)
    own = {name: value for name, value in entries.items() if name not in (BACKGROUND, IGNORE)}
    labels = {name: tuple(value) if isinstance(value, list | tuple) else (value,) for name, value in own.items()}
    declared = frozenset({0}.union(*labels.values()) | ({ignore} if ignore is not None else set()))
    has_regions = any(len(values) > 1 for values in labels.values())
    keys = {name: str(tuple(v) if has_regions and isinstance(v, list) else labels[name][0]) for name, v in own.items()}
    if scheme.regions is not None:
        _check_against(scheme, labels)
        names = {frozenset(values): name for name, values in labels.items()}
        renamed = {
            names.get(frozenset(v), name): labels.get(names.get(frozenset(v)), v) for name, v in scheme.regions.items()
        }
        return Regions(renamed, _keys(renamed) | {n: k for n, k in keys.items() if n in renamed}, declared, ignore)
    return Regions(labels, keys, declared, ignore)


def _keys(labels: Mapping[str, Labels]) -> dict[str, str]:
    return {name: str(values[0] if len(values) == 1 else values) for name, values in labels.items()}


def _is_entry(value: object) -> bool:
    numbers = value if isinstance(value, list | tuple) else [value]
    return bool(numbers) and all(isinstance(number, int) for number in numbers)


def _check_against(scheme: Scheme, labels: Mapping[str, Labels]) -> None:
    known = {frozenset(values) for values in scheme.regions.values()}
    wrong = {name: values for name, values in labels.items() if len(values) > 1 and frozenset(values) not in known}
    if wrong:
        raise UserError(
            f"{scheme.key} scores {_shown(scheme.regions)}; dataset.json declares {_shown(wrong)}, so its label values "
            f"mean something else. Score with another --scheme, or bring both folders to the challenge's values first "
            "(factorizer-nnunet to-challenge)"
        )


def _shown(regions: Mapping[str, Labels]) -> str:
    return ", ".join(f"{name} = {'+'.join(map(str, values))}" for name, values in regions.items())
