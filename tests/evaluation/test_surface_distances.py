"""Surfaces and distances against independent implementations, by laws, and by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import surface_distance
from drawn_masks import KINDS, MaskPair, drawn, random_pair, several_lesions
from hypothesis import given, settings
from hypothesis import strategies as st

from factorizer_nnunet.evaluation import surface
from factorizer_nnunet.evaluation.case import score_arrays
from factorizer_nnunet.evaluation.schemes import NONE
from factorizer_nnunet.evaluation.surface import SurfaceDistances, distances_between, surface_of
from factorizer_nnunet.imaging.content import bounding_box

PER_KIND = 63  # 504 pairs in all
UNIT = (1.0, 1.0, 1.0)


def distances(pair: MaskPair) -> SurfaceDistances:
    made = (surface_of(mask, pair.spacing) for mask in (pair.reference, pair.prediction))
    return distances_between(*made, pair.spacing)


def scores(pair: MaskPair) -> dict[str, float]:
    arrays = (pair.prediction.astype(np.uint8), pair.reference.astype(np.uint8))
    return score_arrays(*arrays, pair.spacing, {"r": (1,)}, NONE, (1.0, 2.1))["r"].values


@pytest.mark.parametrize("kind", KINDS)
def test_agreement_with_simpleitk_and_surface_distance(kind: str) -> None:
    for seed in range(PER_KIND):
        pair = random_pair(kind, seed)
        ours = scores(pair)
        check_overlap(pair, ours)
        if not pair.both_exist:
            assert math.isnan(ours["hd95"]) and math.isnan(ours["assd"])
            continue
        theirs = surface_distance.compute_surface_distances(pair.reference, pair.prediction, pair.spacing)
        areas = [theirs[f"surfel_areas_{name}"].sum() for name in ("gt", "pred")]
        average = np.average(surface_distance.compute_average_surface_distance(theirs), weights=areas)
        percent = 95 * (1 - 1e-9)  # where exactly 95 % of the area is reached, rounding decides in the library
        assert ours["hd95"] == pytest.approx(surface_distance.compute_robust_hausdorff(theirs, percent), abs=1e-6), seed
        assert ours["assd"] == pytest.approx(average, abs=1e-6), seed
        for key, tolerance in (("nsd_1mm", 1.0), ("nsd_2.1mm", 2.1)):
            expected = surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
            assert ours[key] == pytest.approx(expected, abs=1e-9), seed


def check_overlap(pair: MaskPair, ours: dict[str, float]) -> None:
    common, total = int((pair.reference & pair.prediction).sum()), int(pair.reference.sum() + pair.prediction.sum())
    assert ours["volume_reference"] == pytest.approx(pair.reference.sum() * math.prod(pair.spacing) / 1000)
    assert ours["tp"] + ours["fp"] + ours["fn"] + ours["tn"] == pair.reference.size
    if not total:
        assert math.isnan(ours["dice"])
        return
    assert ours["dice"] == float(Fraction(2 * common, total))
    if pair.both_exist:
        measure = sitk.LabelOverlapMeasuresImageFilter()
        measure.Execute(*(sitk.GetImageFromArray(m.astype(np.uint8)) for m in (pair.prediction, pair.reference)))
        theirs = {
            "dice": measure.GetDiceCoefficient(),
            "iou": measure.GetJaccardCoefficient(),
            "sensitivity": 1 - measure.GetFalseNegativeError(),
            "precision": 1 - measure.GetFalseDiscoveryRate(),
        }
        assert {key: ours[key] for key in theirs} == pytest.approx(theirs, rel=1e-12, abs=1e-15)


def test_distances_from_all_voxels_differ_by_no_more_than_a_voxel() -> None:
    """SimpleITK measures from centres of voxels, we from the corners around them, half a diagonal away at each end."""
    for seed in range(40):
        pair = random_pair("blobs", seed)
        images = [sitk.GetImageFromArray(m.T.astype(np.uint8)) for m in (pair.reference, pair.prediction)]
        for image in images:
            image.SetSpacing(pair.spacing)
        measure = sitk.HausdorffDistanceImageFilter()
        measure.Execute(*images)
        difference = abs(distances(pair).hausdorff(1.0) - measure.GetHausdorffDistance())
        assert difference <= np.linalg.norm(pair.spacing) + 1e-9, seed


@pytest.mark.slow  # the import alone takes seconds
def test_agreement_with_monai() -> None:
    """Dice is the same; MONAI measures between voxels at the edge, which can be one voxel from our corners."""
    metrics = pytest.importorskip("monai.metrics", reason="MONAI is not installed: pip install monai")
    torch = pytest.importorskip("torch")
    for seed in range(40):
        pair = random_pair("blobs", seed)
        tensors = [torch.from_numpy(m[None, None].astype(np.float32)) for m in (pair.prediction, pair.reference)]
        assert scores(pair)["dice"] == pytest.approx(float(metrics.compute_dice(*tensors)), abs=1e-6)
        theirs = metrics.compute_hausdorff_distance(*tensors, include_background=True, spacing=pair.spacing)
        assert abs(distances(pair).hausdorff(1.0) - float(theirs)) <= 2 * np.linalg.norm(pair.spacing) + 1e-6, seed


def test_tree_and_map_give_the_same_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(20):
        pair = several_lesions(seed)
        found = []
        for crowded in (0.0, np.inf):
            monkeypatch.setattr(surface, "CROWDED", crowded)
            found.append(distances(pair).distances)
        corners = [surface_of(mask, pair.spacing).corners * pair.spacing for mask in (pair.reference, pair.prediction)]
        one_by_one = np.linalg.norm(corners[0][:, None] - corners[1][None], axis=2)
        for first, second, expected in zip(*found, (one_by_one.min(axis=1), one_by_one.min(axis=0)), strict=True):
            np.testing.assert_allclose(first, second, rtol=0, atol=1e-12)
            np.testing.assert_allclose(first, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.02), (0.02, 0.9), (1.0, 0.1)])
def test_distances_between_parts_are_those_of_the_parts_alone(shares: tuple[float, float]) -> None:
    """Parts are the elements within some distance of a voxel, so that the other part can be near, far or around it."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        pair = several_lesions(seed)
        borders = [surface_of(mask, pair.spacing) for mask in (pair.reference, pair.prediction)]
        parts = []
        for border, share in zip(borders, shares, strict=True):
            order = np.linalg.norm(border.corners - border.corners[rng.integers(len(border))], axis=1).argsort()
            parts.append(order[: max(1, round(share * len(order)))])
        complete = distances_between(*borders, pair.spacing)
        cut = (border.part(part) for border, part in zip(borders, parts, strict=True))
        alone = distances_between(*cut, pair.spacing)
        for fraction in (0.05, 0.5, 0.95, 1.0):
            assert complete.hausdorff_between(*parts, fraction) == pytest.approx(alone.hausdorff(fraction), abs=1e-12)


def test_a_distance_equal_to_the_tolerance_is_within_it() -> None:
    """0.7 mm is 0.7 mm, even between voxels 13 and 14, where the difference of products is slightly larger."""
    reference, prediction = (np.zeros((20, 3, 3), bool) for _ in range(2))
    reference[3:13], prediction[3:14] = True, True
    pair = MaskPair(reference, prediction, (0.7, 9.0, 9.0))
    assert distances(pair).surface_dice(0.7) == 1.0
    assert distances(pair).surface_dice(0.6999) < 1.0


def test_slabs_some_voxels_apart() -> None:
    """Two slabs, 3 voxels of 2 mm apart along z: their equal sides are 6 mm apart, the facing sides 4 mm."""
    reference, prediction = (np.zeros((30, 30, 9), bool) for _ in range(2))
    reference[..., 2], prediction[..., 5] = True, True
    found = distances(MaskPair(reference, prediction, (0.1, 0.1, 2.0)))
    assert found.hausdorff(0.95) == pytest.approx(6.0)
    assert found.surface_dice(3.99) == 0.0
    assert found.average() == pytest.approx(5.0, abs=0.05)


def test_one_voxel_has_the_area_of_its_octahedron() -> None:
    voxel = np.ones((1, 1, 1), bool)
    made = surface_of(voxel, UNIT)
    assert len(made) == 8
    assert made.areas.sum() == pytest.approx(8 * math.sqrt(3) / 8)
    assert made.corners.min() == 0 and made.corners.max() == 1


@given(st.integers(0, 10_000), st.sampled_from(["noise", "blobs", "at the border"]))
@settings(max_examples=40, deadline=None)
def test_laws(seed: int, kind: str) -> None:
    pair = random_pair(kind, seed)
    if not pair.both_exist:
        return
    found = distances(pair)
    turned = distances(MaskPair(pair.prediction, pair.reference, pair.spacing))
    double = distances(MaskPair(pair.reference, pair.prediction, tuple(2 * mm for mm in pair.spacing)))
    moved = distances(MaskPair(*(np.pad(m, 2) for m in (pair.reference, pair.prediction)), pair.spacing))
    axes = MaskPair(pair.reference.transpose(2, 0, 1), pair.prediction.transpose(2, 0, 1), np.roll(pair.spacing, 1))
    assert turned.average() == pytest.approx(found.average())
    assert double.average() == pytest.approx(2 * found.average())
    assert moved.average() == pytest.approx(found.average())
    assert distances(axes).average() == pytest.approx(found.average())
    assert found.average() <= found.hausdorff(1.0) + 1e-9
    assert found.surface_dice(0.0) <= found.surface_dice(1.0) <= found.surface_dice(1e6) == 1.0
    same = distances(MaskPair(pair.reference, pair.reference, pair.spacing))
    assert (same.hausdorff(0.95), same.average(), same.surface_dice(0.0)) == (0.0, 0.0, 1.0)


def test_bounding_box() -> None:
    mask = drawn("....", ".#..", "...#", "....") == 1
    assert bounding_box(mask) == (slice(1, 3), slice(1, 4), slice(0, 1))
    assert bounding_box(np.zeros((2, 2, 2), bool)) is None
    assert len(surface_of(np.zeros((2, 2, 2), bool), UNIT)) == 0
