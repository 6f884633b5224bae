"""Out-of-fold cases to a calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from factorizer_nnunet.calibration.calibration_file import (
    Calibration,
    CalibrationCase,
    OutputCalibration,
    RegionCalibration,
    features_of,
)
from factorizer_nnunet.calibration.dice_model import COVERAGE, MIN_CASES, fit_dice
from factorizer_nnunet.calibration.fit_scaling import fit_scaling
from factorizer_nnunet.calibration.image_distance import described_channels
from factorizer_nnunet.calibration.logit_scaling import NUM_LOGITS, LogitScaling, reliability
from factorizer_nnunet.nnunet.pass_record import PassRecord

_HALVES = 2  # of the cases, where all are of one fold


@dataclass(frozen=True)
class OutOfFoldCase:
    """A case predicted by the fold that was not trained on it.

    Attributes:
        case, fold: their names.
        dice: by region; None if the region is in neither reference nor prediction.
        present: regions that the reference has.
        record: of its passes.
        counts: of each output, from ``logit_counts``.
    """

    case: str
    fold: str
    dice: Mapping[str, float | None]
    present: frozenset[str]
    record: PassRecord
    counts: Mapping[str, np.ndarray]


def calibration_of(
    cases: Sequence[OutOfFoldCase], checkpoints: Mapping[str, str], settings: Mapping[str, Any]
) -> Calibration:
    """Fit everything to at least one case.

    Args:
        cases: of all folds.
        checkpoints: SHA-256 of the checkpoint of each fold.
        settings: how the cases were predicted.
    """
    regions = {name: _region(name, cases) for name in cases[0].record.regions}
    few = [f"{name} ({len(_usable(name, cases))})" for name, one in regions.items() if one.model is None]
    note = ""
    if few:
        note = (
            f"an estimate needs at least {MIN_CASES} out-of-fold cases in which the region is found; too few: "
            f"{', '.join(few)}: raw agreement only"
        )
    return Calibration(
        checkpoints=checkpoints,
        num_cases={fold: sum(one.fold == fold for one in cases) for fold in checkpoints},
        settings=settings,
        coverage=COVERAGE,
        regions=regions,
        outputs={name: _output(name, cases) for name in cases[0].counts},
        channels=described_channels([one.record for one in cases]),
        note=note,
    )


def _usable(name: str, cases: Sequence[OutOfFoldCase]) -> list[tuple[OutOfFoldCase, tuple[float, ...], float]]:
    """The cases in which a region is found, with features and Dice."""
    found = [one for one in cases if not one.record.regions[name].is_empty]
    pairs = [(one, features_of(one.record.regions[name], _with_agreement(cases)), one.dice[name]) for one in found]
    return [(one, x, y) for one, x, y in pairs if y is not None and not any(map(math.isnan, x))]


def _with_agreement(cases: Sequence[OutOfFoldCase]) -> bool:
    return cases[0].record.num_passes > 1


def _region(name: str, cases: Sequence[OutOfFoldCase]) -> RegionCalibration:
    known = _usable(name, cases)
    model = None
    fitted: tuple[CalibrationCase, ...] = ()
    if len(known) >= MIN_CASES:
        dice = np.array([y for _, _, y in known])
        model, left_out = fit_dice(np.array([x for _, x, _ in known]), dice)
        fitted = tuple(
            CalibrationCase(one.case, one.fold, y, float(estimate))
            for (one, _, y), estimate in zip(known, left_out, strict=True)
        )
    empty = [one for one in cases if one.record.regions[name].is_empty]
    values = [value for one in cases if (value := one.dice[name]) is not None]
    return RegionCalibration(
        model=model,
        with_agreement=_with_agreement(cases),
        median_dice=float(np.median(values)) if values else math.nan,
        cases=fitted,
        num_present=sum(name in one.present for one in cases),
        num_empty=len(empty),
        num_missed=sum(name in one.present for one in empty),
        num_all=len(cases),
    )


def _output(output: str, cases: Sequence[OutOfFoldCase]) -> OutputCalibration:
    """Fit to all cases; how good it is, is measured on cases that it was not fitted to: other folds, or halves.

    Where that is not better, nothing is changed: folds that were trained on few cases can be too different.
    """
    folds = list(dict.fromkeys(one.fold for one in cases))
    groups = [[one.counts[output] for one in cases if one.fold == fold] for fold in folds]
    if len(folds) == 1:
        groups = [[one.counts[output] for one in cases[half::_HALVES]] for half in range(_HALVES)]
    sums = [np.sum(group, axis=0) if group else np.zeros((2, NUM_LOGITS)) for group in groups]
    total = np.sum(sums, axis=0)
    before = reliability([(total, LogitScaling())])
    after = reliability([(one, fit_scaling(total - one)) for one in sums])
    if not after.ece < before.ece:
        return OutputCalibration(LogitScaling(), before, before)
    return OutputCalibration(fit_scaling(total), before, after)
