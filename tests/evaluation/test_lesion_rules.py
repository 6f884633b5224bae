"""Every lesion rule on a drawing, and counts against another implementation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from drawn_masks import drawn, several_lesions

from factorizer_nnunet.evaluation.case import RegionScores, score_arrays
from factorizer_nnunet.evaluation.lesions import LesionRule, joined, reference_lesions
from factorizer_nnunet.evaluation.schemes import NONE

UNIT = (1.0, 1.0, 1.0)


def score(reference: np.ndarray, prediction: np.ndarray, rule: LesionRule, spacing: tuple = UNIT) -> RegionScores:
    scheme = replace(NONE, rule=rule)
    return score_arrays(prediction, reference, spacing, {"r": (1,)}, scheme, (1.0,))["r"]


def counts(scores: RegionScores) -> tuple[float, ...]:
    """Detected, missed and false lesions."""
    return tuple(scores.values[f"lesions_{name}"] for name in ("detected", "missed", "false"))


TWO = drawn(
    "##....",
    "##....",
    "..#...",
    "......",
    "....##",
)


@pytest.mark.parametrize(("connectivity", "expected"), [(6, 3), (18, 2), (26, 2)])
def test_connectivity_in_a_slice(connectivity: int, expected: int) -> None:
    assert reference_lesions(TWO == 1, LesionRule(connectivity=connectivity)).count == expected


def test_connectivity_across_a_corner() -> None:
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert [reference_lesions(mask, LesionRule(connectivity=n)).count for n in (6, 18, 26)] == [2, 2, 1]


def test_one_common_voxel_detects_a_lesion() -> None:
    prediction = drawn(
        "......",
        "......",
        "..##..",
        "......",
        "......",
    )
    scores = score(TWO, prediction, LesionRule())
    assert counts(scores) == (1, 1, 0)
    assert scores.values["lesion_f1"] == pytest.approx(2 / 3)
    assert scores.values["lesion_dice"] == pytest.approx((2 * 1 / (5 + 2) + 0) / 2)
    assert scores.lesions == ((0.005, True), (0.002, False))


def test_iou_is_stricter_and_gives_each_lesion_one_partner() -> None:
    reference = drawn("####....", "........", "........", "......##")
    prediction = drawn("##.#....", "........", "........", "......##")
    assert counts(score(reference, prediction, LesionRule())) == (2, 0, 0)
    assert counts(score(reference, prediction, LesionRule(min_iou=0.5))) == (2, 0, 1)  # 2 of 4 has the higher IoU
    assert counts(score(reference, prediction, LesionRule(min_iou=0.6))) == (1, 1, 2)


def test_dilation_merges_near_lesions_and_detects_close_ones() -> None:
    reference = drawn("#...#....", ".........", ".........")
    near, far = drawn(".#.......", ".........", "........."), drawn("........#", ".........", ".........")
    assert counts(score(reference, near, LesionRule())) == (0, 2, 1)
    assert counts(score(reference, near, LesionRule(dilation=1))) == (1, 1, 0)
    assert counts(score(reference, near, LesionRule(dilation=2))) == (1, 0, 0)  # both are one lesion
    assert counts(score(reference, far, LesionRule(dilation=2))) == (0, 1, 1)


def test_small_lesions_are_not_counted_but_excuse_their_partners() -> None:
    prediction = drawn("......", "......", "......", "......", "....#.")
    assert counts(score(TWO, prediction, LesionRule())) == (1, 1, 0)
    assert counts(score(TWO, prediction, LesionRule(min_reference_mm3=2))) == (0, 1, 0)
    doubled = (1.0, 1.0, 2.0)  # the same lesion has 4 mm³
    assert counts(score(TWO, prediction, LesionRule(min_reference_mm3=2), doubled)) == (1, 1, 0)
    assert counts(score(TWO, prediction, LesionRule(min_prediction_mm3=1))) == (0, 2, 0)


def test_false_lesions_lower_the_mean_unless_the_rule_excuses_them() -> None:
    reference, prediction = drawn("##......"), drawn("##...#.#")
    scores = score(reference, prediction, LesionRule(penalty=100.0))
    assert counts(scores) == (1, 0, 2)
    assert scores.values["lesion_dice"] == pytest.approx(1 / 3)
    assert scores.values["lesion_hd95"] == pytest.approx(200 / 3)
    excused = score(reference, prediction, LesionRule(penalty=100.0, punish_false=False))
    assert (excused.values["lesion_dice"], excused.values["lesion_hd95"]) == (1.0, 0.0)
    all_false = score(0 * reference, prediction, LesionRule(punish_false=False))
    assert math.isnan(all_false.values["lesion_dice"]) and all_false.values["lesion_f1"] == 0.0


def test_the_penalty_of_a_missed_lesion_is_the_image_diagonal() -> None:
    nothing = np.zeros_like(TWO)
    scores = score(TWO, nothing, LesionRule(), (2.0, 1.0, 3.0))
    assert scores.values["lesion_hd95"] == pytest.approx(math.hypot(5 * 2.0, 6 * 1.0, 1 * 3.0))
    assert scores.values["lesion_dice"] == 0.0


def test_lesions_that_touch_the_same_lesion_of_another_region_are_one() -> None:
    tissue = drawn(
        "11..11..1",
        ".2222...1",
        ".........",
        "11.......",
    )
    own, other = (reference_lesions(tissue == n, LesionRule()) for n in (1, 2))
    result = joined(own, other)
    assert (own.count, result.count) == (4, 3)
    numbers = result.labels[..., 0]
    assert numbers[0, 0] == numbers[0, 4] != numbers[0, 8]
    assert len({numbers[0, 0], numbers[0, 8], numbers[3, 0]}) == 3


def test_counts_agree_with_simpleitk() -> None:
    for seed in range(30):
        pair = several_lesions(seed)
        connected = sitk.ConnectedComponentImageFilter()
        connected.SetFullyConnected(True)
        components = sitk.GetArrayFromImage(connected.Execute(sitk.GetImageFromArray(pair.reference.astype(np.uint8))))
        found = components[pair.prediction & (components > 0)]
        scores = score(pair.reference.astype(np.uint8), pair.prediction.astype(np.uint8), LesionRule(), pair.spacing)
        assert scores.values["lesions_reference"] == components.max()
        assert scores.values["lesions_detected"] == len(np.unique(found))
        sizes = np.bincount(components.ravel())[1:] * math.prod(pair.spacing) / 1000
        assert sorted(volume for volume, _ in scores.lesions) == pytest.approx(sorted(sizes))
