"""Problems of images and labels are found and described; valid ones have none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nifti_files import write
from volumes import OBLIQUE, image_values

from factorizer_nnunet.imaging.checks import (
    compression_problem,
    constant_problem,
    count_not_finite,
    grid_problem,
    negative_labels_problem,
    not_finite_problem,
    unexpected_labels_problem,
)
from factorizer_nnunet.imaging.grid import largest_offset_mm, spacing_difference
from factorizer_nnunet.imaging.labels import integer_labels
from factorizer_nnunet.imaging.volume import read_volume


def test_voxel_sizes_of_another_number_of_axes_differ() -> None:
    assert spacing_difference((1.0, 0.5, 0.5), (1.0, 0.5, 0.5)) is None
    for other in ((1.0, 0.5), (1.0, 0.5, 0.5, 1.0), (1.0, 0.5, 0.6)):
        assert "differs from" in str(spacing_difference((1.0, 0.5, 0.5), other))


def test_values_that_are_not_finite_are_counted() -> None:
    values = image_values(dtype="float32")
    assert count_not_finite(values) == 0
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    assert count_not_finite(values) == 3
    assert count_not_finite(image_values()) == 0


def test_problems_of_voxels() -> None:
    values = image_values(dtype="float32")
    assert not_finite_problem(values) is None and constant_problem(values) is None
    assert constant_problem(np.full((2, 2, 2), 7)) == "is constant: every voxel is 7"
    values[0, 0, 0] = np.nan
    assert not_finite_problem(values) == "1 voxel is NaN or infinite"
    with pytest.raises(ValueError, match="1 voxel is NaN or infinite"):
        integer_labels(values)


def test_problems_of_label_values() -> None:
    counts = {-2: 3, -1: 1, 0: 9, 4: 5}
    assert negative_labels_problem(counts) == "4 voxels have negative label values: -2, -1"
    assert negative_labels_problem({0: 9, 4: 5}) is None
    expected = "unexpected label values -2 (3 voxels), -1 (1 voxel); the set has [0, 4]"
    assert unexpected_labels_problem(counts, {0, 4}, "the set") == expected
    assert unexpected_labels_problem(counts, counts.keys(), "the set") is None


def test_problems_of_files(tmp_path: Path) -> None:
    moved = OBLIQUE.copy()
    moved[0, 3] += 2
    volume = read_volume(write(tmp_path / "a.nii.gz", image_values(), OBLIQUE))
    other = read_volume(write(tmp_path / "b.nii", image_values(), moved))
    assert grid_problem(volume.grid, volume.grid, "a.nii.gz") is None
    assert str(grid_problem(other.grid, volume.grid, "a.nii.gz")).startswith("origin ")
    assert largest_offset_mm(other.grid, volume.grid) == pytest.approx(2)
    assert compression_problem(volume, Path("a.nii.gz")) is compression_problem(other, Path("b.nii")) is None
    assert compression_problem(volume, Path("a.nii")) == "is compressed despite its name"
    assert compression_problem(other, Path("b.nii.gz")) == "is not compressed despite its name"
