"""Label values are converted to integers, counted and replaced; values that are not integers are rejected."""

from __future__ import annotations

import numpy as np
import pytest
from volumes import SHAPE

from factorizer_nnunet.imaging.labels import count_labels, integer_labels, remapped


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">i2", "int64", "uint16"])
@pytest.mark.parametrize("values", [(0, 1, 2, 4), (1, 3), (0,), (0, 200)])
def test_labels_are_counted_as_by_sorting(values: tuple[int, ...], dtype: str) -> None:
    labels = np.random.default_rng(0).choice(values, SHAPE).astype(dtype)
    numbers = np.unique(labels, return_counts=True)
    assert count_labels(labels) == dict(zip(*(column.tolist() for column in numbers), strict=True))


def test_labels_of_any_size_are_counted() -> None:
    assert count_labels(np.array([[[0, -3, 2**40, 2**40]]])) == {-3: 1, 0: 1, 2**40: 2}


def test_labels_that_are_not_integers_are_rejected() -> None:
    labels = np.zeros(SHAPE)
    labels[0, 0, :3] = 1.0005, 2.9995, -0.0005
    assert count_labels(integer_labels(labels)) == {0: 478, 1: 1, 3: 1}
    labels[1, 1, :2] = 0.5
    with pytest.raises(ValueError, match=r"2 voxels are not integers, e\.g\. 0\.5"):
        integer_labels(labels)


def test_values_are_replaced_all_at_once() -> None:
    labels = np.array([0, 6, 1, 2], np.uint8)
    np.testing.assert_array_equal(remapped(labels, {6: 0, 1: 2, 2: 1}), [0, 0, 2, 1])
    np.testing.assert_array_equal(labels, [0, 6, 1, 2])
