"""Read every file of a case and say all that keeps it from being converted."""

from __future__ import annotations

from factorizer_nnunet.dataset_conversion.discover import Case, Problem
from factorizer_nnunet.dataset_conversion.spec import Release
from factorizer_nnunet.dataset_conversion.volume import (
    Volume,
    count_not_finite,
    geometry_difference,
    integer_labels,
    read_volume,
)


def check_case(release: Release, case: Case) -> list[Problem]:
    """Return all problems of one case; reads every voxel, so that a truncated file is found now, not in training."""
    problems: list[Problem] = []
    reference: Volume | None = None
    files = case.images if case.label is None else (*case.images, case.label)
    for path in files:
        try:
            volume = read_volume(path)
        except OSError as error:
            problems.append(Problem(case.id, path, str(error)))
            continue
        if reference is None:
            reference, first = volume, path.name
        texts = []
        if (difference := geometry_difference(volume, reference)) is not None:
            texts.append(f"{difference} of {first}")
        if bad := count_not_finite(volume.values):
            texts.append(f"{bad} voxels are NaN or infinite")
        else:
            texts += _label_problems(release, volume) if path == case.label else _image_problems(volume)
        problems += [Problem(case.id, path, text) for text in texts]
    return problems


def _image_problems(volume: Volume) -> list[str]:
    if volume.values.min() == volume.values.max():
        return [f"is constant: every voxel is {volume.values.flat[0]:g}"]
    return []


def _label_problems(release: Release, volume: Volume) -> list[str]:
    try:
        unexpected = release.labels.unexpected(integer_labels(volume.values))
    except ValueError as error:
        return [str(error)]
    if not unexpected:
        return []
    values = ", ".join(f"{value} ({count} voxels)" for value, count in unexpected.items())
    return [f"unexpected label values {values}; {release.title} has {sorted(release.labels.to_nnunet)}"]
