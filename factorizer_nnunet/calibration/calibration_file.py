"""``quality_calibration.json`` in a model folder: what its out-of-fold cases have shown, and of which checkpoints.

Imports neither torch nor nnU-Net.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.calibration.dice_model import DiceEstimate, DiceModel
from factorizer_nnunet.calibration.logit_scaling import LogitScaling, Reliability
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object, number_or_nan, without_nan
from factorizer_nnunet.nnunet.model_folder import RULES_KEY
from factorizer_nnunet.nnunet.pass_record import RegionPasses

CALIBRATION_FILE = "quality_calibration.json"
_VERSION = 2
_FIX = "Remove it and run factorizer-nnunet calibrate again"


@dataclass(frozen=True)
class CalibrationCase:
    """An out-of-fold case of a region: its Dice, and the estimate of a line that was fitted without it."""

    case: str
    fold: str
    dice: float
    estimate: float


@dataclass(frozen=True)
class RegionCalibration:
    """What is known about a region.

    Attributes:
        model: from passes to Dice; None where there are too few cases.
        with_agreement: whether the features are agreement and confidence; else confidence alone.
        median_dice: of the out-of-fold cases; NaN without any.
        cases: that were fitted.
        num_present: cases whose reference has the region.
        num_empty, num_missed: cases in which no region was found, and those of them whose reference has it.
        num_all: all out-of-fold cases.
    """

    model: DiceModel | None
    with_agreement: bool
    median_dice: float
    cases: tuple[CalibrationCase, ...]
    num_present: int
    num_empty: int
    num_missed: int
    num_all: int

    @property
    def num_found(self) -> int:
        """Cases in which the region was found."""
        return self.num_all - self.num_empty

    @property
    def missed_share(self) -> float:
        """How likely the region is there although it was not found; with few such cases, as often as in all cases."""
        usual = self.num_present / self.num_all if self.num_all else 1.0
        return (self.num_missed + usual) / (self.num_empty + 1)

    def estimate(self, passes: RegionPasses) -> DiceEstimate | None:
        """The Dice of a case; None if it cannot be estimated. If no pass finds the region, see ``missed_share``."""
        features = features_of(passes, self.with_agreement)
        if self.model is None or passes.is_empty or any(math.isnan(value) for value in features):
            return None
        return self.model.estimate(features)


@dataclass(frozen=True)
class OutputCalibration:
    """What calibrates an output of the network, and how much that improves it.

    Attributes:
        scaling: fitted to all out-of-fold cases.
        before: of the network's probabilities.
        after: calibrated by what was fitted to other cases.
    """

    scaling: LogitScaling
    before: Reliability
    after: Reliability


@dataclass(frozen=True)
class Calibration:
    """What the out-of-fold cases of a model have shown.

    Attributes:
        checkpoints: SHA-256 of the checkpoint of each fold.
        num_cases: of each fold.
        settings: how the cases were predicted.
        coverage: of intervals.
        regions: by name.
        outputs: by name: regions, or labels and background.
        channels: mean and standard deviation over cases of each statistic of each channel.
        note: why something is missing, for the user; empty if nothing is.
    """

    checkpoints: Mapping[str, str]
    num_cases: Mapping[str, int]
    settings: Mapping[str, Any]
    coverage: float
    regions: Mapping[str, RegionCalibration]
    outputs: Mapping[str, OutputCalibration]
    channels: Sequence[Mapping[str, tuple[float, float]]]
    note: str = ""

    def mismatch(self, checkpoints: Mapping[str, str], settings: Mapping[str, Any]) -> str | None:
        """Why this is not about a prediction with these checkpoints, by fold, and settings; None if it is.

        Rules of postprocessing are compared only if ``settings`` has an entry for them: probabilities do not depend on
        them.
        """
        common = checkpoints.keys() & self.checkpoints.keys()
        if not common:
            return f"it is about folds {', '.join(self.checkpoints)}, of which none predicts here"
        changed = sorted(fold for fold in common if checkpoints[fold] != self.checkpoints[fold])
        if changed:
            return f"fold {', '.join(changed)} has been trained further since"
        if RULES_KEY in settings and settings[RULES_KEY] != self.settings.get(RULES_KEY):
            return "its cases were postprocessed by other rules"
        other = [name for name, value in self.settings.items() if name != RULES_KEY and settings.get(name) != value]
        if other:
            values = ", ".join(f"{name} was {self.settings[name]}, is {settings.get(name)}" for name in other)
            return f"its cases were predicted with other settings ({values})"
        return None


def num_features(with_agreement: bool) -> int:
    """The length of ``features_of``."""
    return 2 if with_agreement else 1


def features_of(passes: RegionPasses, with_agreement: bool) -> tuple[float, ...]:
    """What the Dice is estimated from: means over folds, comparable between one fold and several."""
    return (passes.mean_agreement, passes.mean_confidence) if with_agreement else (passes.mean_confidence,)


def calibration_file(model: Path) -> Path:
    """The file in a model folder."""
    return model / CALIBRATION_FILE


def write_calibration(calibration: Calibration, model: Path) -> None:
    """Write the file of a model folder.

    Raises:
        OSError: it cannot be written.
    """
    content = {"version": _VERSION, **without_nan(asdict(calibration))}
    write_text_atomically(calibration_file(model), json.dumps(content, indent=1))


def read_calibration(model: Path) -> Calibration | None:
    """The calibration of a model folder; None if there is none.

    Raises:
        UserError: the file cannot be read.
    """
    file = calibration_file(model)
    if not file.exists():
        return None
    content = load_json_object(file, _FIX)
    if content.get("version") != _VERSION:
        raise UserError(f"{file} is of another version of factorizer-nnunet. {_FIX}")
    try:
        _check_complete(content)
        return Calibration(
            checkpoints={str(fold): str(digest) for fold, digest in content["checkpoints"].items()},
            num_cases={str(fold): int(count) for fold, count in content["num_cases"].items()},
            settings=dict(content["settings"]),
            coverage=float(content["coverage"]),
            regions={str(name): _region(entry) for name, entry in content["regions"].items()},
            outputs={str(name): _output(entry) for name, entry in content["outputs"].items()},
            channels=[
                {str(name): (float(mean), float(spread)) for name, (mean, spread) in one.items()}
                for one in content["channels"]
            ],
            note=str(content["note"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not as calibrate writes it ({error}). {_FIX}") from error


def _check_complete(content: Mapping[str, Any]) -> None:
    """Check that nothing has been taken out: outputs are the regions, or labels and background."""
    named = content["outputs"].keys() - {"background"} == content["regions"].keys() - {"background"}
    _check(named and bool(content["regions"]), "regions", list(content["regions"]))
    _check(bool(content["channels"]), "channels", content["channels"])


def _region(entry: Mapping[str, Any]) -> RegionCalibration:
    with_agreement = bool(entry["with_agreement"])
    median = number_or_nan(entry["median_dice"])
    _check(math.isnan(median) or 0 <= median <= 1, "median_dice", median)
    return RegionCalibration(
        model=None if entry["model"] is None else _model(entry["model"], num_features(with_agreement)),
        with_agreement=with_agreement,
        median_dice=median,
        cases=tuple(
            CalibrationCase(str(one["case"]), str(one["fold"]), float(one["dice"]), float(one["estimate"]))
            for one in entry["cases"]
        ),
        **{name: int(entry[name]) for name in ("num_present", "num_empty", "num_missed", "num_all")},
    )


def _model(entry: Mapping[str, Any], features: int) -> DiceModel:
    slopes = tuple(map(float, entry["slopes"]))
    offset, radius = float(entry["offset"]), float(entry["radius"])
    _check(len(slopes) == features and all(0 <= slope < math.inf for slope in slopes), "slopes", slopes)
    _check(math.isfinite(offset), "offset", offset)
    _check(0 <= radius < math.inf, "radius", radius)
    return DiceModel(slopes, offset, radius, int(entry["num_cases"]))


def _output(entry: Mapping[str, Any]) -> OutputCalibration:
    temperature, offset = float(entry["scaling"]["temperature"]), float(entry["scaling"]["offset"])
    _check(0 < temperature < math.inf, "temperature", temperature)
    _check(math.isfinite(offset), "offset", offset)
    scaling = LogitScaling(temperature, offset)
    return OutputCalibration(scaling, _reliability(entry["before"]), _reliability(entry["after"]))


def _check(is_possible: bool, name: str, value: object) -> None:
    if not is_possible:
        raise ValueError(f"{name} {value}")


def _reliability(entry: Mapping[str, Any]) -> Reliability:
    counts, probabilities, frequencies = (
        tuple(map(number_or_nan, entry[name])) for name in ("counts", "probabilities", "frequencies")
    )
    return Reliability(counts, probabilities, frequencies, number_or_nan(entry["brier"]))
