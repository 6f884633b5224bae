"""Patches at any position are blended into one map, and maps return to the grid of their image."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from factorizer_nnunet.explain.blending import BlendedMaps, PatchPosition
from factorizer_nnunet.explain.geometry import CaseGeometry, Volume
from factorizer_nnunet.explain.interpolation import coarse_position, fine_position, interpolate, interpolation_matrix
from factorizer_nnunet.imaging.grid import Grid

PATCH, STRIDE, SIZE = (8, 8, 4), (4, 2, 1), (13, 10, 9)


def ramp(axis: int, start: int, count: int, stride: int) -> np.ndarray:
    """The position, in voxels of the volume, of each voxel of a stage along one axis, as a map (*stage,)."""
    along = fine_position(np.arange(count), stride) + start
    return np.expand_dims(along, tuple({0, 1, 2} - {axis}))


def blend_ramps(folder: Path, starts: list[list[int]]) -> BlendedMaps:
    maps = BlendedMaps(folder / "maps.npy", 3, SIZE, STRIDE)
    stage = [p // s for p, s in zip(PATCH, STRIDE, strict=True)]
    gaussian = torch.rand(PATCH, generator=torch.Generator().manual_seed(0)) + 0.1
    for place in itertools.product(*starts):
        values = [np.broadcast_to(ramp(a, place[a], stage[a], STRIDE[a]), stage) for a in range(3)]
        maps.add(torch.from_numpy(np.stack(values)), PatchPosition(place, PATCH), gaussian)
    return maps


def test_unaligned_patches_blend_to_the_right_positions(tmp_path: Path) -> None:
    maps = blend_ramps(tmp_path, [[0, 3, 5], [0, 1, 2], [0, 2, 5]])
    assert maps.size == (3, 5, 9)
    for axis in range(3):
        expected = fine_position(np.arange(maps.size[axis]), STRIDE[axis])
        found = maps.mean(axis).mean(tuple({0, 1, 2} - {axis}))
        # At a patch's border, half a voxel of the stage is beyond its last centre.
        assert np.abs(found - expected).max() <= STRIDE[axis] / 2
        np.testing.assert_allclose(found[1:-1], expected[1:-1], atol=0.51 if axis == 0 else 0.2)


def test_an_aligned_patch_stays_unchanged(tmp_path: Path) -> None:
    maps = BlendedMaps(tmp_path / "maps.npy", 2, PATCH, STRIDE)
    values = torch.rand(2, 2, 4, 4)
    maps.add(values, PatchPosition((0, 0, 0), PATCH), torch.rand(PATCH) + 0.1)
    np.testing.assert_allclose(np.stack([maps.mean(0), maps.mean(1)]), values, rtol=1e-5)


def test_surrounding_half_precision_changes_nothing(tmp_path: Path) -> None:
    weights = torch.rand(PATCH, generator=torch.Generator().manual_seed(0)) + 1e-9
    values = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    found = []
    for number, half in enumerate((False, True)):
        maps = BlendedMaps(tmp_path / f"{number}.npy", 2, SIZE, STRIDE)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):  # as nnU-Net predicts on a GPU
            maps.add(values, PatchPosition((1, 1, 1), PATCH), weights)
        found.append(np.stack([maps.mean(0), maps.mean(1)]))
    np.testing.assert_array_equal(found[1], found[0])


def test_interpolation_equals_einsum_along_every_axis() -> None:
    values = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    matrices = [torch.rand(6, 3, dtype=torch.float64), torch.eye(4, dtype=torch.float64), torch.rand(2, 5).double()]
    expected = torch.einsum("nabc,xa,yb,zc->nxyz", values, *matrices)
    torch.testing.assert_close(interpolate(values, matrices), expected)
    torch.testing.assert_close(interpolate(values[0], matrices), expected[0])


def test_interpolation_is_exact_for_lines_and_constant_beyond_the_ends() -> None:
    matrix = interpolation_matrix(np.array([-1.0, 0.0, 0.25, 2.5, 3.0, 9.0]), 4)
    np.testing.assert_allclose(matrix.numpy() @ np.arange(4), [0, 0, 0.25, 2.5, 3, 3])
    np.testing.assert_allclose(interpolation_matrix(np.array([0.0, 0.4]), 1), 1)
    np.testing.assert_allclose(fine_position(coarse_position(np.arange(5.0), 3), 3), np.arange(5.0), atol=1e-12)


@pytest.mark.parametrize("backward", [(0, 1, 2), (2, 0, 1)])
def test_maps_are_brought_back_through_padding_resampling_crop_and_transposition(backward: tuple[int, ...]) -> None:
    original = (12, 10, 14)  # z, y, x of the image
    forward = tuple(int(np.flatnonzero(np.array(backward) == axis)[0]) for axis in range(3))
    shape = tuple(original[axis] for axis in forward)
    lower, upper = (1, 2, 0), tuple(n - 1 for n in shape)
    crop = [b - a for a, b in zip(lower, upper, strict=True)]
    preprocessed = tuple(2 * n for n in crop)
    patch = tuple(n + 6 for n in preprocessed)  # three voxels of padding on each side
    properties = {
        "shape_before_cropping": shape,
        "bbox_used_for_cropping": list(zip(lower, upper, strict=True)),
        "sitk_stuff": {"spacing": (1.0, 2.0, 3.0), "origin": (4.0, 5.0, 6.0), "direction": tuple(np.eye(3).ravel())},
    }
    geometry = CaseGeometry.of(properties, preprocessed, backward)
    assert geometry.grid.size == original[::-1]
    for axis in range(3):
        # In the network's padded grid, a voxel of the original lies at twice its position in the crop.
        along = (np.arange(patch[axis]) - 3 + 0.5) / 2 - 0.5 + lower[axis]
        values = np.broadcast_to(np.expand_dims(along, tuple({0, 1, 2} - {axis})), patch).astype(np.float32)
        back = geometry.from_stage(np.ascontiguousarray(values), (1, 1, 1), patch)
        position = np.broadcast_to(np.expand_dims(np.arange(shape[axis]), tuple({0, 1, 2} - {axis})), shape)
        expected = position.transpose(backward).transpose(2, 1, 0)
        assert back[geometry.box_xyz].size == np.prod(crop)
        np.testing.assert_allclose(back[geometry.box_xyz], expected[geometry.box_xyz], atol=1e-4)
        back[geometry.box_xyz] = 0
        assert not back.any()


def test_the_affine_follows_nifti() -> None:
    grid = Grid((2, 2, 2), (1.0, 2.0, 3.0), (10.0, 20.0, 30.0), tuple(np.eye(3).ravel()))
    volume = Volume(np.zeros((2, 2, 2)), grid)
    np.testing.assert_allclose(volume.affine @ [1, 1, 1, 1], [-11, -22, 33, 1])
