"""Passes and calibration to an assessment of each case: estimated Dice, doubt, and reasons to look at it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from factorizer_nnunet.calibration.calibration_file import Calibration, RegionCalibration, read_calibration
from factorizer_nnunet.calibration.dice_model import DiceEstimate
from factorizer_nnunet.calibration.image_distance import ImageDistance, distance_of
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.wording import count_of, short
from factorizer_nnunet.nnunet.exported_model import opened_model
from factorizer_nnunet.nnunet.model_folder import PREDICTION_FILE, RULES_KEY, ModelFolder
from factorizer_nnunet.nnunet.pass_record import PassRecord, RegionPasses
from factorizer_nnunet.nnunet.training_images import TrainingImages, training_images
from factorizer_nnunet.postprocessing import LEAVE_OUT

_BELOW_MEDIAN = 0.2  # an estimate so far below the median of the out-of-fold cases is doubtful
_LITTLE_AGREEMENT = 0.7  # of folds or passes, if no estimate says what is usual
_WIDE_RANGE = 1.5  # ratio of the largest to the smallest volume or number of lesions among members
_OPTIONS = {"tile_step_size": "-step_size", "num_iters": "--num-iters", "num_shifts": "--num-shifts"}  # of calibrate
_FEW_LESIONS = 2  # more or fewer are not remarkable


@dataclass(frozen=True)
class RegionQuality:
    """A region of a case.

    Attributes:
        estimate: of the Dice; None if it cannot be estimated.
        agreement, confidence, fold_agreement: raw, see ``RegionPasses``; means over models; NaN if not known.
        volumes_ml, lesions: smallest and largest among members.
        missed: how likely the region is there although no pass finds it; NaN if one does, or if that is not known.
        flags: reasons to look at it.
        trust: how much the image lets the passes be trusted, see ``ImageDistance``.
    """

    estimate: DiceEstimate | None
    agreement: float
    confidence: float
    fold_agreement: float
    volumes_ml: tuple[float, float]
    lesions: tuple[int, int]
    missed: float
    flags: tuple[str, ...]
    trust: float = 1.0

    @property
    def doubt(self) -> float:
        """1 less the lowest Dice that anything speaks for, which counts less where the image is unusual.

        NaN if no pass finds the region and such cases are not known.
        """
        if not math.isnan(self.missed):
            return 1 - self.trust * (1 - self.missed)
        known = [self.fold_agreement]
        known += [self.agreement, self.confidence] if self.estimate is None else [self.estimate.dice]
        return max((1 - self.trust * value for value in known if not math.isnan(value)), default=math.nan)


@dataclass(frozen=True)
class CaseQuality:
    """A case with its regions by name."""

    case: str
    regions: Mapping[str, RegionQuality]
    image: ImageDistance

    @property
    def doubt(self) -> float:
        """That of the most doubtful region; NaN if it is not known of any."""
        known = [region.doubt for region in self.regions.values() if not math.isnan(region.doubt)]
        return max(known, default=math.nan)

    @property
    def flags(self) -> list[str]:
        """All reasons to look at the case."""
        own = [f"{name}: {flag}" for name, region in self.regions.items() for flag in region.flags]
        return [*own, *self.image.reasons]


@dataclass(frozen=True)
class Judge:
    """A model whose passes are judged.

    Attributes:
        model: its folder.
        calibration: None if there is none that fits.
        not_calibrated: why not, and how to change that; empty if it is.
        training: ranges of its training images.
        channel_names: of its images.
        folds: that predict.
        passes_note: what cannot be said for want of passes; empty if nothing is missing.
    """

    model: Path
    calibration: Calibration | None
    not_calibrated: str
    training: TrainingImages
    channel_names: tuple[str, ...]
    folds: tuple[str, ...] = ()
    passes_note: str = ""

    @property
    def notes(self) -> list[str]:
        """All that a reader of its numbers must know."""
        return [note for note in (self.passes_note, self.note) if note]

    @property
    def note(self) -> str:
        """What cannot be said for want of a calibration, or of cases in it; empty if nothing is missing."""
        if self.calibration is not None:
            return self.calibration.note
        return f"raw agreement only, and intensities are not compared with the training: {self.not_calibrated}"


def judges_of(folder: Path) -> list[Judge]:
    """The models that predicted a folder, as its record says.

    Raises:
        UserError: the record, or a calibration, cannot be read.
    """
    fix = "Predict again into an empty folder"
    content = load_json_object(folder / PREDICTION_FILE, fix)
    entries = [content, *content.get("ensemble_with", [])]
    models = [content.get("model"), *content.get("ensemble_models", [])]
    if len(models) < len(entries) or not all(isinstance(model, str) for model in models):
        raise UserError(f"{folder / PREDICTION_FILE} does not name the models that predicted. {fix}")
    return [
        judge_of(Path(model), entry["checkpoints"], {RULES_KEY: None, **entry})
        for model, entry in zip(models, entries, strict=True)
    ]


def judge_of(model: Path, checkpoints: Mapping[str, str], settings: Mapping[str, Any]) -> Judge:
    """A model, or an exported one, with its calibration, if that is about these checkpoints and settings.

    Raises:
        UserError: the calibration, or the exported model, cannot be read.
    """
    with opened_model(model) as opened:
        calibration = read_calibration(opened.folder)
        training = training_images(opened.folder)
        names: tuple[str, ...] = ()
        if ModelFolder(opened.folder).dataset_file.is_file():
            names = ModelFolder(opened.folder).dataset("Restore it as the training left it").channel_names
        has_rules = ModelFolder(opened.folder).postprocessing_file.is_file()
    again = f"run factorizer-nnunet calibrate -m {shlex.quote(str(model))}{_options_of(settings, has_rules)}"
    if opened.record is not None:
        again = "calibrate the original model, and export it again"
    reason = ""
    if calibration is None:
        reason = f"the model is not calibrated: {again}"
    elif (problem := calibration.mismatch(checkpoints, settings)) is not None:
        replaced = "" if opened.record is not None else ", which replaces it"
        calibration, reason = None, f"the calibration of {model} does not fit, since {problem}: {again}{replaced}"
    return Judge(model, calibration, reason, training, names, tuple(checkpoints))


def _options_of(settings: Mapping[str, Any], has_rules: bool) -> str:
    """The options of calibrate for predictions with these settings, by a model that has rules of postprocessing."""
    named = {option: settings.get(name) for name, option in _OPTIONS.items()}
    options = [f" {option} {value}" for option, value in named.items() if value is not None]
    options += [] if settings.get("use_mirroring", True) else [" --disable_tta"]
    options += [f" {LEAVE_OUT}"] if has_rules and settings.get(RULES_KEY) is None else []
    return "".join(options)


def of_passes(judge: Judge, records: Sequence[PassRecord]) -> Judge:
    """The judge of these cases, with a note if there was nothing to compare in any of them."""
    if len(judge.folds) > 1 or not records or any(one.num_passes > 1 for one in records):
        return judge
    return replace(
        judge,
        passes_note=f"{judge.model} predicted each case once, so that agreement is not known and confidence is all "
        "there is: predict without --disable_tta, or with several folds",
    )


def assess(
    case: str, records: Sequence[PassRecord], judges: Sequence[Judge], warnings: Sequence[str] = ()
) -> CaseQuality:
    """Assess a case by the passes of each model, in the order of the judges. Estimates of several are averaged.

    Args:
        case: its name.
        records: of its passes, one for each model.
        judges: the models.
        warnings: about its images and its segmentation.
    """
    pairs = list(zip(records, judges, strict=True))
    regions = {
        name: _region([(record.regions[name], _of(judge, name)) for record, judge in pairs])
        for name in records[0].regions
    }
    distances = [
        distance_of(
            record,
            judge.training,
            [] if judge.calibration is None else judge.calibration.channels,
            judge.channel_names,
        )
        for record, judge in pairs
    ]
    farthest = max(distances, key=lambda one: (len(one.reasons), np.nan_to_num(one.deviations)))
    trust = min(one.trust for one in distances)
    regions = {name: replace(region, trust=trust) for name, region in regions.items()}
    further = [reason for reason in farthest.reasons if not any(reason in warning for warning in warnings)]
    return CaseQuality(case, regions, replace(farthest, reasons=(*warnings, *further)))


def _of(judge: Judge, region: str) -> RegionCalibration | None:
    return None if judge.calibration is None else judge.calibration.regions.get(region)


def _region(known: Sequence[tuple[RegionPasses, RegionCalibration | None]]) -> RegionQuality:
    passes = [one for one, _ in known]
    estimates = [None if calibration is None else calibration.estimate(one) for one, calibration in known]
    found = [one for one in estimates if one is not None]
    estimate = None
    if found and len(found) == len(estimates):
        estimate = DiceEstimate(*(float(np.mean([getattr(one, key) for one in found])) for key in _ESTIMATED))
    volumes = [ml for one in passes for ml in one.volumes_ml]
    lesions = [count for one in passes for count in one.lesions]
    missed, often = math.nan, ""
    if all(one.is_empty for one in passes):
        missed = _mean([math.nan if one is None else one.missed_share for _, one in known])
        often = "; ".join(_how_often_missed(one) for _, one in known if one is not None)
    quality = RegionQuality(
        estimate=estimate,
        agreement=_mean([one.mean_agreement for one in passes]),
        confidence=_mean([one.mean_confidence for one in passes]),
        fold_agreement=_mean([one.fold_agreement for one in passes]),
        volumes_ml=(min(volumes), max(volumes)),
        lesions=(min(lesions), max(lesions)),
        missed=missed,
        flags=(),
    )
    median = _mean([math.nan if one is None else one.median_dice for _, one in known])
    return replace(quality, flags=tuple(_flags(quality, median, often, all_empty=not any(volumes))))


def _how_often_missed(region: RegionCalibration) -> str:
    """What the out-of-fold cases say of a region that was not found."""
    if region.num_empty:
        cases = count_of(region.num_empty, "out-of-fold case")
        return f"of {cases} in which it was not found, {region.num_missed} have it"
    return f"it was found in all {region.num_all} out-of-fold cases, and {region.num_present} have it"


_ESTIMATED = ("dice", "low", "high")


def _flags(region: RegionQuality, median_dice: float, often_missed: str, all_empty: bool) -> Iterator[str]:
    """Reasons to look at a region."""
    if all_empty:
        yield f"not found ({often_missed})" if often_missed else "not found"
        return
    estimate = region.estimate
    if estimate is not None and estimate.dice < median_dice - _BELOW_MEDIAN:
        yield f"estimated Dice {estimate.dice:.2f}, usually {median_dice:.2f}"
    if region.fold_agreement < (_LITTLE_AGREEMENT if estimate is None else estimate.low):
        yield f"folds agree with a Dice of {region.fold_agreement:.2f} only"
    if estimate is None and region.agreement < _LITTLE_AGREEMENT:
        yield f"mirrored passes agree with a Dice of {region.agreement:.2f} only"
    low, high = region.volumes_ml
    if high > _WIDE_RANGE * low:
        yield f"volume from {short(low)} to {short(high)} ml"
    fewest, most = region.lesions
    if most - fewest > _FEW_LESIONS and most > _WIDE_RANGE * fewest:
        yield f"{fewest} to {most} lesions"


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
