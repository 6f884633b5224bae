"""What only all labels of a dataset together show, decided from facts alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.dataset_check.facts import FileFacts
from factorizer_nnunet.dataset_check.rules import Expected, Finding
from factorizer_nnunet.nnunet.folds import NUMBER_OF_FOLDS

_UNLIKELY_RATIO = 20.0  # of voxel sizes; scanners of one study differ by less, while mm and m or µm differ by 1000
_FEW_OF = 2  # a class of few cases is rare where all cases are more than this many per fold
_SPECK_VOXELS = 8  # 2 × 2 × 2: a single voxel after the network's first stride
_LARGEST_INT16 = 2**15 - 1  # nnU-Net keeps labels as int16 in preprocessed data


def dataset_problems(label_facts: Mapping[str, FileFacts], folder: Path, expected: Expected) -> Iterator[Finding]:
    """What only all labels together, those of each case in ``folder``, show."""
    too_large = [value for value in expected.labels if value > _LARGEST_INT16]
    if too_large:
        text = f"declares labels above {_LARGEST_INT16}, which wrap around in nnU-Net's preprocessed data"
        yield Finding(expected.json_file, text, "Renumber the labels")
    counts = _cases_with_value(label_facts.values())
    if label_facts and not any(counts[value] for value in counts if value not in (0, expected.ignore)):
        ignored = "" if expected.ignore is None else f" or {expected.ignore} (ignore)"
        yield Finding(folder, f"no label file has any foreground: every voxel is 0{ignored}", "Add the labels")
        return
    for value, name in expected.labels.items():
        types = {facts.stored_type for facts in label_facts.values()}
        if not counts[value] and types and all(_exceeds(value, stored) for stored in types):
            yield Finding(
                folder,
                f"label {value} ({name}) cannot be stored in the files' type {', '.join(sorted(types))}: such values "
                "have become other numbers when the labels were saved",
                "Save the labels again as int16 or uint16",
                may_be_meant=True,
            )


def dataset_warnings(label_facts: Mapping[str, FileFacts], expected: Expected) -> Iterator[str]:
    """What may be intended but should be known: classes that hardly occur, voxels of quite another size."""
    yield from _spacing_warnings(label_facts)
    counts = _cases_with_value(label_facts.values())
    total = len(label_facts)
    for value, name in expected.foreground.items():
        if counts[value] <= 1 < total:
            where = "no case" if counts[value] == 0 else f"1 of {total} cases"
            yield f"label {value} ({name}) occurs in {where}: it cannot be learned and validated"
        elif counts[value] > 1:
            yield from _rarity_warnings(f"label {value} ({name})", value, label_facts.values())
    if ignored := [name for name, facts in label_facts.items() if set(facts.values or ()) == {expected.ignore}]:
        yield f"{count_of(len(ignored), 'label')} with no voxel that is not ignored: {first_few(ignored, 3)}"


def _rarity_warnings(label: str, value: int, label_facts: Collection[FileFacts]) -> Iterator[str]:
    """What numbers say against a class being learned: fewer cases than folds of so many, or only specks in each."""
    sizes = [facts.values[value] for facts in label_facts if facts.values and value in facts.values]
    if len(sizes) < NUMBER_OF_FOLDS and len(label_facts) > _FEW_OF * NUMBER_OF_FOLDS:
        yield (
            f"{label} occurs in {len(sizes)} of {len(label_facts)} cases, fewer than nnU-Net has folds "
            f"({NUMBER_OF_FOLDS}): some folds cannot validate it, and others train on {len(sizes) - 1} at most. "
            "Collect more such cases, or join it with another label"
        )
    if np.median(sizes) < _SPECK_VOXELS:
        yield (
            f"{label} has {np.median(sizes):g} voxels in the median of its {len(sizes)} cases: so few are rarely "
            "learned. Check the labels, or join it with another label"
        )


def _spacing_warnings(label_facts: Mapping[str, FileFacts]) -> Iterator[str]:
    """Cases whose voxels are, along an axis, far smaller or larger than most: their header may give another unit."""
    sizes = {case: np.asarray(facts.spacing) for case, facts in label_facts.items() if len(facts.spacing) == 3}
    if not sizes:
        return
    usual = np.median(list(sizes.values()), 0)
    for case, size in sizes.items():
        if np.any(np.maximum(size / usual, usual / size) > _UNLIKELY_RATIO):
            found, most = (" × ".join(f"{value:g}" for value in voxel) for voxel in (size, usual))
            yield f"case {case} has voxels of {found} mm (z, y, x), most have about {most} mm: check its header"


def _cases_with_value(label_facts: Iterable[FileFacts]) -> Counter[int]:
    """In how many label files each value occurs."""
    return Counter(value for facts in label_facts for value in facts.values or ())


def _exceeds(value: int, stored_type: str) -> bool:
    """Whether an integer type cannot hold a value."""
    try:
        dtype = np.dtype(stored_type)
    except TypeError:
        return False
    return dtype.kind in "iu" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
