"""Challenge schemes against naive implementations, and the form of the table of constants."""

from __future__ import annotations

import math

import numpy as np
import pytest
from drawn_masks import several_lesions
from literal_scores import drop_small, hd95, isles_2022, join_touching, lesion_wise, merged_by_dilation, overlap_dice
from scipy.ndimage import gaussian_filter

from factorizer_nnunet.commands.evaluate import EPILOG
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.case import score_arrays
from factorizer_nnunet.evaluation.empty import DEFAULT_POLICY
from factorizer_nnunet.evaluation.metrics import metrics_for
from factorizer_nnunet.evaluation.schemes import ET, NETC, RC, SCHEMES, scheme_named

UNIT = (1.0, 1.0, 1.0)


@pytest.mark.parametrize("key", SCHEMES)
def test_every_scheme_scores_every_metric(key: str) -> None:
    scheme = SCHEMES[key]
    pair = several_lesions(1)
    regions = scheme.regions or {"lesion": (1,)}
    scores = score_arrays(
        pair.prediction.astype(np.uint8), pair.reference.astype(np.uint8), UNIT, regions, scheme, (1.0,)
    )
    keys = {metric.key for metric in metrics_for((1.0,))}
    assert all(set(found.values) == keys for found in scores.values())
    assert set(scheme.ranked_by) <= keys
    assert set(scheme.empty) == set(DEFAULT_POLICY)
    assert scheme.key == key and (scheme.source or key == "none")
    assert set(scheme.region_rules) <= set((scheme.regions or {}).values())


def test_unknown_scheme() -> None:
    with pytest.raises(UserError, match=r"unknown scheme 'brats1999': choose from none, brats2018"):
        scheme_named("brats1999")


def test_help_names_every_scheme() -> None:
    listed = EPILOG.split("schemes: ")[1].split("The names of")[0].replace(",", " ").split()
    names, stem = set(), ""
    for word in listed:
        names.add(stem + word if word.startswith("-") else word)
        stem = stem if word.startswith("-") else word.partition("-")[0]
    assert names == set(SCHEMES)


def test_brats_2025_keeps_the_rules_of_2024() -> None:
    scheme = SCHEMES["brats2025-gli"]
    assert (scheme.title, scheme.ranked_by) == ("BraTS 2025 GLI, lesion-wise", ())
    assert scheme.region_rules == SCHEMES["brats2024-gli"].region_rules and "not confirmed" in scheme.source


def tissues(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two label arrays with values 0 to 4 in many small pieces, the second similar to the first."""
    rng = np.random.default_rng(seed)
    shape = (44, 30, 20)
    base = gaussian_filter(rng.normal(size=(5, *shape)), (0, 1.3, 1.3, 1.3))
    base[0] += 0.4
    return base.argmax(0), (base + 0.35 * gaussian_filter(rng.normal(size=base.shape), (0, 1, 1, 1))).argmax(0)


@pytest.mark.parametrize(("task", "rounds", "limit"), [("gli", 3, 50), ("men", 1, 50), ("met", 1, 2)])
def test_brats_2023_against_naive_code(task: str, rounds: int, limit: float) -> None:
    scheme = SCHEMES[f"brats2023-{task}"]
    for seed in range(3):
        for spacing in (UNIT, (1.0, 1.0, 3.0)):
            pair = several_lesions(seed)
            reference, prediction = pair.reference, pair.prediction
            expected = lesion_wise(
                merged_by_dilation(reference, rounds), merged_by_dilation(prediction, 0), spacing, rounds, limit, 374.0
            )
            found = score_arrays(3 * prediction, 3 * reference, spacing, {"ET": ET}, scheme, (1.0,))["ET"].values
            assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)


def test_brats_2024_glioma_against_naive_code() -> None:
    """Dilation, limits and joining of NETC, ET and RC, whose rules all differ."""
    scheme = SCHEMES["brats2024-gli"]
    rules = {NETC: (5, 20), RC: (5, 20), ET: (3, 10)}
    order = {ET: (NETC, RC), NETC: (ET, RC), RC: (ET, NETC)}
    joins = 0
    for seed in range(3):
        arrays = tissues(seed)
        single = {
            labels: [merged_by_dilation(array == labels[0], rounds) for array in arrays]
            for labels, (rounds, _) in rules.items()
        }
        for labels, (_, limit) in rules.items():
            single[labels][1] = drop_small(single[labels][1], limit, 1.0)
        for labels, (rounds, limit) in rules.items():
            lesions = list(single[labels])
            for other in order[labels]:
                lesions = [join_touching(own, theirs) for own, theirs in zip(lesions, single[other], strict=True)]
            joins += len(np.unique(single[labels][0])) - len(np.unique(lesions[0]))
            expected = lesion_wise(*lesions, UNIT, rounds, limit, 337.0)
            found = score_arrays(*arrays[::-1], UNIT, {"r": labels}, scheme, (1.0,))["r"].values
            assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6), (seed, labels)
    assert joins > 0


def test_brats_2024_radiotherapy_does_not_punish_false_lesions() -> None:
    scheme = SCHEMES["brats2024-men-rt"]
    pair = several_lesions(2)
    spacing = (1.0, 2.0, 3.0)
    prediction = drop_small(merged_by_dilation(pair.prediction, 1), 50, 6.0)
    diagonal = math.sqrt(sum(n * n for n in pair.reference.shape))
    expected = lesion_wise(merged_by_dilation(pair.reference, 1), prediction, spacing, 1, 50, diagonal, False)
    arrays = (pair.prediction.astype(int), pair.reference.astype(int))
    found = score_arrays(*arrays, spacing, {"GTV": (1,)}, scheme, (1.0,))["GTV"].values
    assert expected["lesions_false"] > 0
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("key", "one_empty"),
    [("brats2018", 373.13), ("brats2021", 373.13), ("brats2023-gli", 374.0), ("brats2024-gli", 337)],
)
def test_brats_and_empty_masks(key: str, one_empty: float) -> None:
    pair = several_lesions(0)
    reference, prediction = 3 * pair.reference, 3 * pair.prediction
    nothing = np.zeros_like(reference)

    def scored(truth: np.ndarray, found: np.ndarray) -> tuple[float, float]:
        values = score_arrays(found, truth, UNIT, {"ET": ET}, SCHEMES[key], (1.0,))["ET"].values
        return values["dice"], values["hd95"]

    assert scored(nothing, nothing) == (1.0, 0.0)
    assert scored(reference, nothing) == scored(nothing, prediction) == (0.0, one_empty)
    plain = overlap_dice(reference > 0, prediction > 0), hd95(reference > 0, prediction > 0, UNIT)
    assert scored(reference, prediction) == pytest.approx(plain)


def test_brats_2023_without_counted_lesions_is_perfect() -> None:
    reference = np.zeros((9, 9, 9), np.uint8)
    reference[4, 4, 4] = 3  # 1 mm³, below the limit
    values = score_arrays(0 * reference, reference, UNIT, {"ET": ET}, SCHEMES["brats2023-gli"], (1.0,))["ET"].values
    assert (values["lesion_dice"], values["lesion_hd95"], values["dice"]) == (1.0, 0.0, 0.0)


def test_isles_2022_against_naive_code() -> None:
    for seed in range(10):
        pair = several_lesions(seed)
        arrays = (pair.prediction.astype(int), pair.reference.astype(int))
        values = score_arrays(*arrays, pair.spacing, {"r": (1,)}, SCHEMES["isles2022"], (1.0,))["r"].values
        expected = isles_2022(pair.reference, pair.prediction)
        assert {key: values[key] for key in expected} == pytest.approx(expected)
    nothing = np.zeros((4, 4, 4), int)
    values = score_arrays(nothing, nothing, UNIT, {"r": (1,)}, SCHEMES["isles2022"], (1.0,))["r"].values
    assert (values["dice"], values["lesion_f1"], values["volume_error"], values["lesion_count_error"]) == (1, 1, 0, 0)


def test_isles_2024_requires_an_iou_of_a_fifth() -> None:
    reference, prediction = np.zeros((20, 3, 3), int), np.zeros((20, 3, 3), int)
    reference[:10, 1, 1] = 1
    for length, found in ((2, 1), (1, 0)):  # 2 of 10 voxels, 1 of 10
        prediction[:] = 0
        prediction[:length, 1, 1] = 1
        values = score_arrays(prediction, reference, UNIT, {"r": (1,)}, SCHEMES["isles2024"], (1.0,))["r"].values
        assert values["lesion_f1"] == found
