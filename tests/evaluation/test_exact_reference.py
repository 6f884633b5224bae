"""Scores of random masks against a plain reference, which compares with limits in integers, without any rounding."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
from brute_lesions import lesion_scores
from scipy.ndimage import gaussian_filter
from surface_distance.lookup_tables import create_table_neighbour_code_to_surface_area

from factorizer_nnunet.evaluation.case import score_arrays
from factorizer_nnunet.evaluation.lesions import LesionRule
from factorizer_nnunet.evaluation.reading import read_labels
from factorizer_nnunet.evaluation.schemes import scheme_named
from factorizer_nnunet.imaging.limits import at_least, at_most, shortest_decimal

PAIRS, UM = 200, 1000  # voxel sizes are integers in micrometres, so that squared distances are exact
Elements = tuple[np.ndarray, np.ndarray]  # corners (n, 3) and areas (n,)


def elements(mask: np.ndarray, areas: np.ndarray) -> Elements:
    """Corners where voxels of both kinds meet, visited one by one."""
    padded = np.pad(mask, 1).astype(int)
    bits = 2 ** np.arange(7, -1, -1).reshape(2, 2, 2)
    corners, found = [], []
    for corner in np.ndindex(*(n - 1 for n in padded.shape)):
        x, y, z = corner
        code = int((padded[x : x + 2, y : y + 2, z : z + 2] * bits).sum())
        if code not in (0, 255):
            corners.append(corner)
            found.append(areas[code])
    return np.array(corners).reshape(-1, 3), np.array(found)


def squares_um(one: np.ndarray, other: np.ndarray, spacing_um: np.ndarray) -> np.ndarray:
    """Squared distance from each corner to the nearest other one, integers."""
    steps = (one[:, None] - other[None]) * spacing_um
    return (steps**2).sum(-1).min(1)


def expected_scores(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_um: np.ndarray,
    tolerances_um: tuple[int, ...],
    rule: LesionRule,
    smallest: tuple[int, int],
) -> dict[str, float]:
    """The reference; `smallest` as for `lesion_scores`."""
    r, p, both = int(reference.sum()), int(prediction.sum()), int((reference & prediction).sum())
    voxel_ml = math.prod(map(int, spacing_um)) / UM**3 / 1000
    values = {
        "dice": 2 * both / (r + p),
        "iou": both / (r + p - both),
        "sensitivity": both / r,
        "precision": both / p,
        "volume_reference": r * voxel_ml,
        "volume_prediction": p * voxel_ml,
        "volume_difference": (p - r) * voxel_ml,
        "volume_error": abs(p - r) * voxel_ml,
        **{"tp": both, "fp": p - both, "fn": r - both, "tn": reference.size - r - p + both},
    }
    areas = create_table_neighbour_code_to_surface_area(spacing_um / UM)
    squares, weights = both_ways(reference, prediction, spacing_um, areas)
    total = sum(float(w.sum()) for w in weights)
    values["hd95"] = hausdorff_95(squares, weights)
    values["assd"] = sum(float(w @ np.sqrt(s)) for s, w in zip(squares, weights, strict=True)) / UM / total
    for tolerance in tolerances_um:
        within = sum(float(w[s <= tolerance**2].sum()) for s, w in zip(squares, weights, strict=True))
        values[f"nsd_{tolerance / UM:g}mm"] = within / total
    diagonal_mm = math.sqrt(sum((n * int(um)) ** 2 for n, um in zip(reference.shape, spacing_um, strict=True))) / UM

    def hd95(one: np.ndarray, other: np.ndarray) -> float:
        return hausdorff_95(*both_ways(one, other, spacing_um, areas))

    return values | lesion_scores(reference, prediction, rule, smallest, hd95, diagonal_mm)


def both_ways(
    reference: np.ndarray, prediction: np.ndarray, spacing_um: np.ndarray, areas: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Squared distances from each surface to the other, and the areas that they count for."""
    surfaces = [elements(mask, areas) for mask in (reference, prediction)]
    squares = [squares_um(surfaces[a][0], surfaces[1 - a][0], spacing_um) for a in (0, 1)]
    return squares, [surface[1] for surface in surfaces]


def hausdorff_95(squares: list[np.ndarray], weights: list[np.ndarray]) -> float:
    """The larger of the distances in mm that 95 % of each surface do not exceed."""
    largest = 0.0
    for found, weight in zip(squares, weights, strict=True):
        order = np.argsort(found)
        reached = np.cumsum(weight[order]) >= 0.95 * weight.sum() * (1 - 1e-12)
        largest = max(largest, math.sqrt(int(found[order][reached.argmax()])) / UM)
    return largest


def random_mask(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    field = gaussian_filter(rng.normal(size=shape), rng.uniform(0.3, 1.2))
    return field >= np.quantile(field, rng.uniform(0.6, 0.95))


@pytest.mark.parametrize("part", range(4))
def test_200_random_pairs_equal_the_reference(tmp_path: Path, part: int) -> None:
    rng = np.random.default_rng(part)
    for number in range(PAIRS // 4):
        shape = tuple(int(n) for n in rng.integers(3, 8, 3))
        step = int(rng.choice([1, 10, 100]))  # 1 to 3 decimals in mm
        spacing_um = np.array([int(rng.integers(200 // step, 8000 // step + 1)) * step for _ in range(3)])
        masks = [random_mask(rng, shape) for _ in range(2)]
        axis, times = int(rng.integers(3)), int(rng.integers(1, 3))
        smallest = int(rng.integers(0, 8)), int(rng.integers(0, 3))  # lesions of exactly these sizes occur
        voxel_mm3 = math.prod(map(int, spacing_um)) / UM**3
        rule = LesionRule(
            connectivity=(6, 18, 26)[number % 3],
            dilation=number % 2 * int(rng.integers(1, 3)),
            dilate_predictions=bool(rng.integers(2)),
            min_reference_mm3=smallest[0] * voxel_mm3,
            min_prediction_mm3=smallest[1] * voxel_mm3,
            punish_false=bool(rng.integers(2)),
        )
        at_limit = int(spacing_um[axis]) * times  # the distance of many elements
        tolerances_um = tuple({at_limit, int(rng.integers(1, 16)) * 500})
        expected = expected_scores(*masks, spacing_um, tolerances_um, rule, smallest)

        affine = np.diag([*(float(size) / UM for size in spacing_um), 1.0])
        images = []
        for name, mask in zip("rp", masks, strict=True):
            nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), affine), tmp_path / f"{name}.nii")
            images.append(read_labels(tmp_path / f"{name}.nii"))
        scores = score_arrays(
            images[1].labels,
            images[0].labels,
            images[0].grid.spacing,
            {"r": (1,)},
            scheme_named("none", rule),
            tuple(tolerance / UM for tolerance in tolerances_um),
        )["r"].values
        assert scores == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True), (part, number)


@pytest.mark.parametrize("spacing", [0.4, 0.2, 1.1, 1 / 3, 0.7, 2.3])
def test_a_surface_exactly_at_the_tolerance_is_within_it(tmp_path: Path, spacing: float) -> None:
    """A plate, and the same plate some voxels further: all surfaces but the sides are exactly as far apart."""
    steps = 5
    masks = np.zeros((2, 12, 6, 6), np.uint8)
    masks[0, 2:4] = masks[1, 2 + steps : 4 + steps] = 1
    images = []
    for name, mask in zip("rp", masks, strict=True):
        nibabel.save(nibabel.Nifti1Image(mask, np.diag([spacing] * 3 + [1])), tmp_path / f"{name}.nii.gz")
        images.append(read_labels(tmp_path / f"{name}.nii.gz"))
    tolerance = steps * spacing
    values = score_arrays(
        images[1].labels, images[0].labels, images[0].grid.spacing, {"r": (1,)}, tolerances_mm=(tolerance,)
    )["r"].values
    assert values[f"nsd_{tolerance:g}mm"] == 1.0 and values["hd95"] == pytest.approx(tolerance, rel=1e-6)


def test_95_percent_reached_exactly_are_reached() -> None:
    """19 of 20 equal elements are 1 mm away: their share is 0.95, whatever the order of the sum."""
    from factorizer_nnunet.evaluation.surface import _weighted_quantile

    for weight in (0.1, 1 / 3, 0.7, 5.12):
        assert _weighted_quantile(np.array([9.0] + [1.0] * 19), np.full(20, weight), 0.95) == 1.0


def test_limits_have_a_relative_slack_and_no_more() -> None:
    for limit in (1e-3, 0.95, 2.0, 374.0):
        assert at_most(limit * (1 + 1e-7), limit) and at_least(limit * (1 - 1e-7), limit)
        assert not at_most(limit * (1 + 1e-5), limit) and not at_least(limit * (1 - 1e-5), limit)
    assert at_most(0.0, 0.0) and not at_most(1e-12, 0.0)


@pytest.mark.parametrize("value", [0.4, 0.9375, 1 / 3, 5.0, 0.449, 1.1, 8.0, 0.123456789])
def test_voxel_sizes_are_the_shortest_decimals(value: float) -> None:
    stored = float(np.float32(value))
    found = shortest_decimal(stored)
    assert np.float32(found) == np.float32(value) and len(repr(found)) <= len(repr(stored))
    assert shortest_decimal(found) == found
