"""The regions to score: the labels or regions of dataset.json, or those of a challenge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.schemes import NONE, Labels, Scheme
from factorizer_nnunet.nnunet.dataset_json import DatasetJson


@dataclass(frozen=True)
class Regions:
    """Regions by name, and the other values that label files may contain."""

    labels: Mapping[str, Labels]  # label values of each region
    keys: Mapping[str, str]  # the name of each region in nnU-Net's summary.json
    declared: frozenset[int] | None  # values that may occur, including 0; None: any
    ignore: int | None = None  # label of voxels that are not scored


def regions_of(dataset: DatasetJson | None, scheme: Scheme = NONE, found: frozenset[int] = frozenset()) -> Regions:
    """Choose the regions to score.

    Args:
        dataset: declares labels or regions; None makes each label value found in the files a region, unless the
            scheme has regions.
        scheme: its own regions take precedence; they get the names of dataset.json if that declares the same regions.
        found: label values of the files; used only without `dataset`.

    Raises:
        UserError: dataset.json declares no labels, or regions that contradict those of the scheme.
    """
    if dataset is None:
        labels = dict(scheme.regions or {str(value): (value,) for value in sorted(found - {0})})
        if not labels:
            raise UserError("all label files are empty: give a dataset.json that names labels with --dataset-json")
        known = None if scheme.regions is None else frozenset({0}.union(*labels.values()))
        return Regions(labels, _keys(labels), known)
    declared = dataset.regions
    if scheme.regions is None:
        return Regions(declared, dataset.region_keys, dataset.label_values, dataset.ignore_label)
    _check_regions(scheme.key, scheme.regions, declared)
    names = {frozenset(values): name for name, values in declared.items()}
    renamed: dict[str, Labels] = {}
    for name, values in scheme.regions.items():
        own_name = names.get(frozenset(values))
        renamed[own_name or name] = declared[own_name] if own_name else values
    keys = _keys(renamed) | {name: key for name, key in dataset.region_keys.items() if name in renamed}
    return Regions(renamed, keys, dataset.label_values, dataset.ignore_label)


def _keys(labels: Mapping[str, Labels]) -> dict[str, str]:
    return {name: str(values[0] if len(values) == 1 else values) for name, values in labels.items()}


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
