"""Read every file of a case and say all that keeps it from being converted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from factorizer_nnunet.dataset_conversion.discover import Case, Problem
from factorizer_nnunet.dataset_conversion.spec import Release

GEOMETRY_TOLERANCE = 1e-3  # mm for spacing and origin; the files of a release differ by rounding, far below this
INTEGER_TOLERANCE = 1e-3  # label values; scaled integers come back as 0.9999999


def read_image(path: Path) -> sitk.Image:
    """Read a NIfTI file with all its voxels.

    Raises:
        OSError: it cannot be read, is truncated or not 3D.
    """
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("ITK ERROR: ").strip()
        raise OSError(f"cannot be read as NIfTI: {reason}") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        shape = f"{image.GetSize()} with {image.GetNumberOfComponentsPerPixel()} values a voxel"
        raise OSError(f"is not one 3D volume: {shape}")
    return image


def integer_labels(image: sitk.Image) -> np.ndarray:
    """Return the label values of `image` as integers, (z, y, x) int64.

    Raises:
        ValueError: some values are no integers, within `INTEGER_TOLERANCE`.
    """
    values = sitk.GetArrayFromImage(image)
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.int64)
    finite = np.isfinite(values)
    rounded = np.rint(np.where(finite, values, 0))
    wrong = ~finite | (np.abs(np.where(finite, values, 0) - rounded) > INTEGER_TOLERANCE)
    if wrong.any():
        examples = ", ".join(f"{value:g}" for value in np.unique(values[wrong])[:3])
        raise ValueError(f"{int(wrong.sum())} voxels hold values that are no integers, e.g. {examples}")
    return rounded.astype(np.int64)


def geometry_difference(image: sitk.Image, reference: sitk.Image) -> str | None:
    """Return how the grid of `image` differs from that of `reference`, or None if voxels lie on one another."""
    if image.GetSize() != reference.GetSize():
        return f"shape {image.GetSize()} differs from {reference.GetSize()}"
    for name in ("Spacing", "Origin", "Direction"):
        here, there = getattr(image, f"Get{name}")(), getattr(reference, f"Get{name}")()
        if not np.allclose(here, there, rtol=0, atol=GEOMETRY_TOLERANCE):
            return f"{name.lower()} {here} differs from {there}"
    return None


def check_case(release: Release, case: Case) -> list[Problem]:
    """Return all problems of one case; reads every voxel, so that a truncated file is found now, not in training."""
    problems: list[Problem] = []
    reference: sitk.Image | None = None
    files = case.images if case.label is None else (*case.images, case.label)
    for path in files:
        try:
            image = read_image(path)
        except OSError as error:
            problems.append(Problem(case.id, path, str(error)))
            continue
        if reference is None:
            reference, first = image, path.name
        else:
            difference = geometry_difference(image, reference)
            if difference is not None:
                problems.append(Problem(case.id, path, f"{difference} of {first}"))
        text = _label_problem(release, image) if path == case.label else _image_problem(image)
        if text is not None:
            problems.append(Problem(case.id, path, text))
    return problems


def _image_problem(image: sitk.Image) -> str | None:
    values = sitk.GetArrayViewFromImage(image)
    bad = int(values.size - np.count_nonzero(np.isfinite(values)))
    if bad:
        return f"{bad} voxels are NaN or infinite"
    if values.min() == values.max():
        return f"is constant: every voxel is {values.flat[0]:g}"
    return None


def _label_problem(release: Release, image: sitk.Image) -> str | None:
    try:
        unexpected = release.labels.unexpected(integer_labels(image))
    except ValueError as error:
        return str(error)
    if unexpected:
        values = ", ".join(f"{value} ({count} voxels)" for value, count in unexpected.items())
        return f"unexpected label values {values}; {release.title} has {sorted(release.labels.to_nnunet)}"
    return None
