"""Which settings are compared, which are best, and which one is chosen; no model is needed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.overlap import dice_of_regions
from factorizer_nnunet.network import FactorizerConfig
from factorizer_nnunet.tuning.measure import Measurement
from factorizer_nnunet.tuning.search_space import PredictionSettings, SearchSpace, stock_settings
from factorizer_nnunet.tuning.selection import choose, compare, unfit_to_choose

CONFIG = FactorizerConfig(
    features_per_stage=[8, 16],
    strides=[[1, 1, 1], [2, 2, 2]],
    kernel_sizes=[[3, 3, 3]] * 2,
    n_blocks_per_stage=[1, 1],
    n_blocks_per_stage_decoder=[1],
    shifts=[0, 0.25, 0.5, 0.75],
)
REFERENCE = stock_settings(CONFIG, (0, 1, 2))


def setting(**changes: object) -> PredictionSettings:
    return PredictionSettings(**{**vars(REFERENCE), **changes})


def measured(of: PredictionSettings, seconds: float, *dice: float | None) -> list[Measurement]:
    """One measurement per case, by the Dice of its only region."""
    common = {"fold": "0", "checkpoint": "c", "data": "d", "setting": of, "seconds": seconds, "rest_seconds": 0.0}
    return [Measurement(case=str(n), dice={"tumor": value}, **common) for n, value in enumerate(dice)]


def test_by_default_all_combinations_are_compared_the_stock_command_first() -> None:
    settings = SearchSpace().settings(CONFIG, (0, 1, 2))
    assert (
        settings[0]
        == REFERENCE
        == PredictionSettings(num_iters=5, num_shifts=4, mirroring=(0, 1, 2), tile_step_size=0.5)
    )
    assert len(settings) == len(set(settings)) == 2 * 3 * 3 * 3
    assert {s.num_iters for s in settings} == {1, 5}
    assert {s.num_shifts for s in settings} == {1, 2, 4}
    assert {s.mirroring for s in settings} == {(), (2,), (0, 1, 2)}
    assert {s.tile_step_size for s in settings} == {0.5, 0.75, 1.0}


def test_requested_settings_are_compared_with_the_stock_command() -> None:
    choices = SearchSpace(iterations=(2,), shifts=(1,), mirroring=("none", "0,2"), steps=(1,))
    asked = {"num_iters": 2, "num_shifts": 1, "tile_step_size": 1.0}
    assert choices.settings(CONFIG, (0, 1, 2)) == [
        REFERENCE,
        setting(mirroring=(), **asked),
        setting(mirroring=(0, 2), **asked),
    ]


def test_without_mirroring_in_training_none_is_compared() -> None:
    assert {s.mirroring for s in SearchSpace().settings(CONFIG, None)} == {()}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"iterations": (1, 0)}, "--iterations 0: invalid num_iters=0: expected an integer of at least 1"),
        ({"shifts": (5,)}, "--shifts 5: invalid num_shifts=5: expected 1 to 4, the number of shifts"),
        ({"steps": (0.5, 1.5)}, "--step-sizes 1.5: a step must be above 0 and at most 1"),
        ({"mirroring": ("0,3",)}, "--mirroring 0,3: the training mirrored along axes 0, 1, 2; expected none, all"),
    ],
)
def test_invalid_values_are_reported(choices: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        SearchSpace(**choices).settings(CONFIG, (0, 1, 2))
    assert message in str(error.value)


def test_rows_have_change_worst_case_and_speed_up() -> None:
    fast = setting(mirroring=())
    rows = compare([*measured(REFERENCE, 8, 0.8, 0.6), *measured(fast, 2, 0.9, 0.3)], [REFERENCE, fast])
    assert [row.setting for row in rows] == [fast, REFERENCE]
    row = rows[0]
    assert (row.dice, row.change, row.worst_change, row.speed_up) == pytest.approx((0.6, -0.1, -0.3, 4))
    assert row.change_low <= row.change <= row.change_high
    assert all(row.is_best for row in rows)


def test_a_region_of_no_case_does_not_count() -> None:
    other = setting(num_iters=1)
    rows = compare([*measured(REFERENCE, 1, 0.8, None), *measured(other, 2, 0.6, None)], [REFERENCE, other])
    assert [row.dice for row in rows] == pytest.approx([0.8, 0.6])
    assert rows[1].worst_change == pytest.approx(-0.2)
    assert math.isnan(rows[1].change_low), "one case has no interval"


def test_the_fastest_good_setting_is_chosen_and_of_equally_fast_ones_the_best() -> None:
    bad, good, better, slower = (setting(tile_step_size=step) for step in (1.0, 0.9, 0.8, 0.7))
    measurements = [
        *measured(REFERENCE, 10, *5 * [0.800]),
        *measured(bad, 1, *5 * [0.790]),
        *measured(good, 2.00, *5 * [0.799]),
        *measured(better, 2.05, *5 * [0.801]),
        *measured(slower, 4, *5 * [0.850]),
    ]
    rows = compare(measurements, [REFERENCE, bad, good, better, slower])
    assert {row.setting for row in rows if row.is_best} == {bad, good, better, slower}
    assert choose(rows, tolerance=0.002, reference=REFERENCE).setting == better
    assert choose(rows, tolerance=0.02, reference=REFERENCE).setting == bad
    assert choose(rows[1:], tolerance=0, reference=REFERENCE).setting == better
    assert choose(rows, tolerance=0.01, reference=REFERENCE).setting == bad, "0.8 - 0.79 is 0.01, whatever the rounding"


def test_without_a_good_setting_the_stock_command_is_kept() -> None:
    fast = setting(mirroring=())
    rows = compare([*measured(REFERENCE, 8, *6 * [0.8]), *measured(fast, 2, *6 * [0.7])], [REFERENCE, fast])
    assert choose(rows, tolerance=0.002, reference=REFERENCE).setting == REFERENCE


def test_a_setting_that_is_not_faster_is_not_chosen_for_its_dice() -> None:
    slower, same = setting(num_iters=1), setting(num_shifts=1)
    changed = ((slower, 8.2, 0.9), (same, 7.8, 0.85))
    measurements = [*measured(REFERENCE, 8, *5 * [0.8])]
    measurements += [one for of, seconds, dice in changed for one in measured(of, seconds, *5 * [dice])]
    rows = compare(measurements, [REFERENCE, slower, same])
    assert choose(rows, tolerance=0.002, reference=REFERENCE).setting == REFERENCE


@pytest.mark.parametrize("known", [1, 2, 4, 5])
def test_nothing_is_chosen_from_fewer_than_five_cases(known: int) -> None:
    """Cases without a Dice do not count."""
    fast = setting(mirroring=())
    values, empty = [0.81, 0.9, 0.7, 0.85, 0.8][:known], [None] * 3
    rows = compare([*measured(REFERENCE, 8, *values, *empty), *measured(fast, 2, *values, *empty)], [REFERENCE, fast])
    chosen = choose(rows, tolerance=0.002, reference=REFERENCE)
    assert chosen.setting == (fast if known == 5 else REFERENCE)
    reason = unfit_to_choose(rows)
    assert reason is None if known == 5 else reason is not None and reason.startswith(f"only {known} measured case")


def test_dice_of_regions_by_hand() -> None:
    reference = np.array([[0, 1, 1, 2], [9, 9, 0, 0]])
    prediction = np.array([[1, 1, 2, 2], [1, 2, 0, 0]])
    regions = {"whole": (1, 2), "rim": (1,), "core": (2,), "none": (3,)}
    assert dice_of_regions(prediction, reference, regions, ignore=9) == {
        "whole": 6 / 7,
        "rim": 2 / 4,
        "core": 2 / 3,
        "none": None,
    }
    assert dice_of_regions(prediction, reference, {"rim": (1,)}, ignore=None) == {"rim": 2 / 5}
