"""How far an image is from those of the training: its voxels, its size, and how the network sees its intensities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from factorizer_nnunet.core.json_files import json_or_none
from factorizer_nnunet.nnunet.model_folder import FINGERPRINT_FILE
from factorizer_nnunet.nnunet.pass_record import PassRecord

FAR = 5.0  # standard deviations of the training cases from which an image is unusual
_SPACING_SLACK, _SIZE_SLACK = 1.05, 1.25  # factors beyond the smallest and the largest of the training
# Standard deviations are at least this: of a data set of alike images they could be 0. Percentiles of normalised
# images have about 1, and shares and ratios are compared as logarithms.
_LEAST_SPREAD = 0.05
_AS_LOGARITHMS = ("noise", "sharpness")
_LEAST_VALUE = 1e-3
_WORDS = {
    "noise": "noise",
    "sharpness": "sharpness",
    "flat": "share of empty slices",
}


@dataclass(frozen=True)
class ImageDistance:
    """How an image differs from those of the training.

    Attributes:
        deviations: the largest of the intensities, in standard deviations; NaN if they are not known.
        reasons: what is unusual, in words.
    """

    deviations: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class TrainingImages:
    """Ranges of the training images, along the axes of the image reader; empty where they are not known."""

    spacing_mm: tuple[tuple[float, float], ...] = ()
    size_mm: tuple[tuple[float, float], ...] = ()


def training_images(model: Path) -> TrainingImages:
    """The ranges in a model folder's copy of the fingerprint."""
    content = json_or_none(model / FINGERPRINT_FILE)
    try:
        spacings = np.array(content["spacings"], float)
        sizes = np.array(content["shapes_after_crop"], float) * spacings
        low, high = spacings.min(axis=0), spacings.max(axis=0)
        small, large = sizes.min(axis=0), sizes.max(axis=0)
    except (KeyError, TypeError, ValueError):
        return TrainingImages()
    return TrainingImages(_pairs(low, high), _pairs(small, large))


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
    reasons = [
        f"{what} {_shown(values)} mm, in the training {_ranges(ranges)} mm"
        for what, values, ranges, slack in (
            ("voxels of", record.spacing_mm, training.spacing_mm, _SPACING_SLACK),
            ("an extent of", record.size_mm, training.size_mm, _SIZE_SLACK),
        )
        if any(not low / slack <= v <= high * slack for v, (low, high) in zip(values, ranges, strict=False))
    ]
    largest = math.nan
    for number, (own, usual) in enumerate(zip(record.channels, channels, strict=False)):
        away = {
            name: abs(_value(name, own[name]) - mean) / max(spread, _LEAST_SPREAD)
            for name, (mean, spread) in usual.items()
            if name in own
        }
        if not away:
            continue
        most = max(away, key=lambda name: away[name])
        largest = np.fmax(largest, away[most])
        if away[most] > FAR:
            channel = names[number] if number < len(names) else f"channel {number}"
            what = _WORDS.get(most, f"percentile {most.removeprefix('p')} of the intensities")
            reasons.append(f"{what} of {channel}: {away[most]:.0f} standard deviations from the training cases")
    return ImageDistance(float(largest), tuple(reasons))


def _value(name: str, value: float) -> float:
    return math.log(max(value, _LEAST_VALUE)) if name in _AS_LOGARITHMS else value


def _pairs(low: np.ndarray, high: np.ndarray) -> tuple[tuple[float, float], ...]:
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))


def _shown(values: Sequence[float]) -> str:
    return " × ".join(f"{value:.3g}" for value in values)


def _ranges(ranges: Sequence[tuple[float, float]]) -> str:
    return " × ".join(f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}" for low, high in ranges)
