"""How far an image is from those of the training: its voxels, its size, and how the network sees its intensities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from factorizer_nnunet.nnunet.pass_record import PassRecord
from factorizer_nnunet.nnunet.training_images import TrainingImages

FAR = 5.0  # standard deviations of the training cases from which an image is unusual
_SPACING_SLACK, _SIZE_SLACK = 1.05, 1.25  # factors beyond the smallest and the largest of the training
# Standard deviations are at least this: of a data set of alike images they could be 0. Percentiles of normalised
# images have about 1, and shares and ratios are compared as logarithms.
_LEAST_SPREAD = 0.05
_AS_LOGARITHMS = ("noise", "sharpness")
_LEAST_VALUE = 1e-3
_EMPTY = "flat"  # share of slices that are empty
_EMPTY_USUAL = 3.0  # standard deviations above the mean up to which a share of empty slices is usual
_LOSS = 0.05  # exponent: a Dice is expected to be 3 % lower at 10 standard deviations, 8 % at 25
_WORDS = {
    "noise": "the noise",
    "sharpness": "the sharpness",
}


@dataclass(frozen=True)
class ImageDistance:
    """How an image differs from those of the training.

    Attributes:
        deviations: the largest of the intensities, in standard deviations; NaN if they are not known.
        reasons: what is unusual, in words.
        empty_share: of the slices, beyond what is usual; of several channels, that of the one with the fewest.
    """

    deviations: float
    reasons: tuple[str, ...]
    empty_share: float = 0.0

    @property
    def trust(self) -> float:
        """What is left of a Dice that passes promise, as a factor.

        Of a region, what lies in empty slices is not found: with half of it, a perfect Dice is 2/3. And passes that
        agree on an image unlike the training's say a little less.
        """
        found = 1 - self.empty_share
        unlike = 1.0 if math.isnan(self.deviations) else max(1.0, self.deviations / FAR)
        return 2 * found / (1 + found) * unlike**-_LOSS


def described_channels(cases: Sequence[PassRecord]) -> list[dict[str, tuple[float, float]]]:
    """Mean and standard deviation over cases of each statistic of each channel, for ``distance_of``."""
    result = []
    for channel in range(len(cases[0].channels)):
        described = [{name: _value(name, one) for name, one in case.channels[channel].items()} for case in cases]
        values = {name: [one[name] for one in described] for name in described[0]}
        result.append({name: (float(np.mean(one)), float(np.std(one))) for name, one in values.items()})
    return result


def distance_of(
    record: PassRecord,
    training: TrainingImages,
    channels: Sequence[Mapping[str, tuple[float, float]]],
    names: Sequence[str],
) -> ImageDistance:
    """Compare an image with those of the training.

    Args:
        record: of the case.
        training: ranges of the training images.
        channels: of the out-of-fold cases, from ``described_channels``; empty if they are not known.
        names: of the channels.
    """
    reasons = training.unlike(record.spacing_mm, record.size_mm, _SPACING_SLACK, _SIZE_SLACK)
    largest, empty = math.nan, []
    for number, (own, usual) in enumerate(zip(record.channels, channels, strict=False)):
        away = {
            name: abs(_value(name, own[name]) - mean) / max(spread, _LEAST_SPREAD)
            for name, (mean, spread) in usual.items()
            if name in own and name != _EMPTY
        }
        channel = names[number] if number < len(names) else f"channel {number}"
        empty.append(_unusually_empty(own, usual))
        if empty[-1] > 0:
            reasons.append(f"{own[_EMPTY]:.0%} of the slices of {channel} are empty, usually {usual[_EMPTY][0]:.0%}")
        if not away:
            continue
        most = max(away, key=lambda name: away[name])
        largest = np.fmax(largest, away[most])
        if away[most] > FAR:
            what = _WORDS.get(most, f"the {most.removeprefix('p')}th percentile")
            reasons.append(f"{what} of {channel} is {away[most]:.0f} standard deviations from the training cases")
    return ImageDistance(float(largest), tuple(reasons), min(empty, default=0.0))


def _unusually_empty(own: Mapping[str, float], usual: Mapping[str, tuple[float, float]]) -> float:
    """By how much the share of empty slices is above the mean; 0 where it is not unusual or not known."""
    if _EMPTY not in own or _EMPTY not in usual:
        return 0.0
    mean, spread = usual[_EMPTY]
    more = own[_EMPTY] - mean
    return more if more > _EMPTY_USUAL * max(spread, _LEAST_SPREAD) else 0.0


def _value(name: str, value: float) -> float:
    return math.log(max(value, _LEAST_VALUE)) if name in _AS_LOGARITHMS else value
