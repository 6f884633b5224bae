"""Connected components are those that SciPy finds, in masks of any shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from factorizer_nnunet.imaging.components import Connectivity, connected_components

DISTANCE = {6: 1, 18: 2, 26: 3}  # SciPy's name for a connectivity


def _line(ndim: int) -> np.ndarray:
    """Two voxels with a gap: cc3d 4.1.1 fails on them, given as booleans."""
    return np.array([True, False, True]).reshape(3, *[1] * (ndim - 1))


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@given(arrays(bool, array_shapes(min_dims=2, max_dims=3, max_side=6), elements=st.booleans()))
@example(_line(2))
@example(_line(3))
@example(np.asfortranarray(_line(3)))
def test_components_are_scipys(connectivity: Connectivity, mask: np.ndarray) -> None:
    structure = ndimage.generate_binary_structure(mask.ndim, min(DISTANCE[connectivity], mask.ndim))
    expected, number = ndimage.label(mask, structure)
    components, count = connected_components(mask, connectivity)
    assert count == number
    pairs = np.unique(np.stack([components.ravel(), expected.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(expected))  # the same parts, whatever their order
    assert ((components > 0) == mask).all()
