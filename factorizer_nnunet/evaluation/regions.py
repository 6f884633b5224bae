"""The regions to score: the labels or regions of dataset.json, or those of a challenge with the data set's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.parts import CORE, WHOLE, part_named
from factorizer_nnunet.evaluation.schemes import FULL_NAMES, NONE, Labels, ScoringScheme
from factorizer_nnunet.nnunet.dataset_json import DatasetJson


@dataclass(frozen=True)
class Regions:
    """Regions by name, and the other values that label files may contain."""

    labels: Mapping[str, Labels]  # label values of each region
    keys: Mapping[str, str]  # the name of each region in nnU-Net's summary.json
    declared: frozenset[int] | None  # values that may occur, including 0; None: any
    ignore: int | None = None  # label of voxels that are not scored
    scheme: ScoringScheme = NONE  # with the values of `labels`
    meaning: str = ""  # which values a challenge's regions have here, such as "tumor core = 1 + 4"


def regions_of(
    dataset: DatasetJson | None, scheme: ScoringScheme = NONE, found: frozenset[int] = frozenset()
) -> Regions:
    """Choose the regions to score.

    Args:
        dataset: declares labels or regions; None makes each label value found in the files a region, unless the
            scheme has regions, which then have the values of the challenge's release.
        scheme: its own regions take precedence. Their values are those that dataset.json has for labels or regions
            with these names, and they are named as dataset.json names a region of these values.
        found: label values of the files; used only without `dataset`.

    Raises:
        UserError: dataset.json declares no labels, or its names do not say which values a challenge's regions have.
    """
    if dataset is None and scheme.regions is None:
        labels: dict[str, Labels] = {str(value): (value,) for value in sorted(found - {0})}
        if not labels:
            raise UserError("all label files are empty: give a dataset.json that names labels with --dataset-json")
        return Regions(labels, _keys(labels), None, scheme=scheme)
    if dataset is None:
        labels = dict(scheme.regions or {})
        known = frozenset({0}.union(*labels.values()))
        return Regions(labels, _keys(labels), known, scheme=scheme, meaning=_meaning(labels))
    declared = dataset.regions
    if scheme.regions is None:
        return Regions(declared, dataset.region_keys, dataset.label_values, dataset.ignore_label, scheme)
    own = scheme.renumbered(_values_by_release(scheme, declared, str(dataset.path)))
    names = {frozenset(values): name for name, values in declared.items()}
    renamed: dict[str, Labels] = {}
    for name, values in (own.regions or {}).items():
        own_name = names.get(frozenset(values))
        renamed[own_name or name] = values
    keys = _keys(renamed) | {name: key for name, key in dataset.region_keys.items() if name in renamed}
    meaning = _meaning(own.regions or {})
    return Regions(renamed, keys, dataset.label_values, dataset.ignore_label, own, meaning)


def _keys(labels: Mapping[str, Labels]) -> dict[str, str]:
    return {name: str(values[0] if len(values) == 1 else values) for name, values in labels.items()}


def _meaning(regions: Mapping[str, Labels]) -> str:
    return ", ".join(f"{FULL_NAMES.get(name, name)} = {' + '.join(map(str, v))}" for name, v in regions.items())


def _values_by_release(scheme: ScoringScheme, declared: Mapping[str, Labels], file: str) -> dict[int, Labels]:
    """The values that dataset.json has for each value of the release, by the names of its labels and regions.

    A value belongs to the part of a tumor that is in exactly the same named regions: with "whole tumor" 1, 2, 3, "tumor
    core" 2, 3 and "enhancing tumor" 3, the value 2 is the part of the core that does not enhance.
    """
    if len(scheme.parts) == len(declared) == 1:  # one lesion in both, whatever its name
        return {next(iter(scheme.parts)): next(iter(declared.values()))}
    regions = scheme.regions or {}
    members = {part: frozenset({part}) for part in scheme.parts.values()}
    members |= {
        whole: frozenset(scheme.parts[value] for value in regions[key])
        for whole, key in ((WHOLE, "WT"), (CORE, "TC"))
        if key in regions
    }
    named = {name: part for name in declared if (part := part_named(name)) is not None}
    known = {name: members[part] for name, part in named.items() if part in members}
    elsewhere = {value for name, part in named.items() if part not in members for value in declared[name]}
    found: dict[int, list[int]] = {value: [] for value in scheme.parts}
    for value in sorted({value for name in known for value in declared[name]} - elsewhere):
        fitting = [
            release
            for release, part in scheme.parts.items()
            if all((value in declared[name]) == (part in parts) for name, parts in known.items())
        ]
        if len(fitting) != 1:
            raise UserError(
                f"{file}: the names of its labels do not say what the value {value} is for {scheme.key}: "
                f"{_shown(declared)}. {_fix(scheme)}"
            )
        found[fitting[0]].append(value)
    wholes = [values for values in regions.values() if len(values) > 1]
    needed = set().union(*wholes) if wholes else set(scheme.parts)
    missing = [part for release, part in scheme.parts.items() if release in needed and not found[release]]
    if missing:
        raise UserError(
            f"{file}: no label is named as {', '.join(missing)}, which {scheme.key} scores: it has {_shown(declared)}. "
            f"{_fix(scheme)}"
        )
    taken = {value for values in declared.values() for value in values}
    for release, values in found.items():
        if not values and release not in taken:  # a part outside the tumor that this data set does not have
            values.append(release)
    return {release: tuple(values) for release, values in found.items() if values}


def _fix(scheme: ScoringScheme) -> str:
    return (
        f"Give a copy with names such as {', '.join(dict.fromkeys(scheme.parts.values()))} with --dataset-json, or use "
        "another --scheme"
    )


def _shown(regions: Mapping[str, Labels]) -> str:
    return ", ".join(f"{name} = {'+'.join(map(str, values))}" for name, values in regions.items())
