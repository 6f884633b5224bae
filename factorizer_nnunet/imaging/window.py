"""The range of values that a picture shows from black to white, by modality, as a radiologist sets it.

CT is shown in Hounsfield units with the usual window of the labelled organ. Other images have no unit: their range
comes from their own percentiles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

_SAMPLES = 100_000  # values from which percentiles are computed
_CT_WORD = re.compile(r"(?<![a-z])(?:NCCT|CECT|CTA|CT)(?![a-z])", re.IGNORECASE)
_AIR_HU = -500  # only CT has values below: air has -1000
_ORGANS = (  # name, level and width in HU, and the range that the middle 90 % of the labelled voxels lie in
    ("brain", 40, 80, (-5, 90)),
    ("lung", -600, 1500, (-1100, -300)),
    ("soft tissue", 40, 400, (-300, 300)),
    ("bone", 500, 2000, (200, 3100)),
)
_FAT_HU, _TISSUE_HU = (-130, -60), (-20, 120)
_FAT_SHARE = 0.2  # of fat and tissue together; heads have less, trunks more


@dataclass(frozen=True)
class Window:
    """Values shown as black (`low`) and white (`high`); `organ` is that of a CT window, "" for other images."""

    low: float
    high: float
    organ: str = ""

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends, for `imaging.planes.slice_picture`."""
        return self.low, self.high

    @property
    def text(self) -> str:
        """Such as "level 40, width 80 HU (brain)" or "12 to 830"."""
        if self.organ:
            return f"level {(self.low + self.high) / 2:g}, width {self.high - self.low:g} HU ({self.organ})"
        return " to ".join(f"{end:.0f}" if abs(end) >= 1000 else f"{end:.4g}" for end in self.ends)


def ct_window(organ: str) -> Window:
    """The window of an organ: brain, lung, soft tissue or bone."""
    level, width = next((level, width) for name, level, width, _ in _ORGANS if name == organ)
    return Window(level - width / 2, level + width / 2, organ)


def window_of(values: np.ndarray, channel: str = "", labelled: np.ndarray | None = None) -> Window:
    """The window to show an image with.

    Args:
        values: (x, y, z).
        channel: its name; one with the word CT, CTA, NCCT or CECT is computed tomography, as are values below -500.
        labelled: bool, of the same shape: the voxels of interest; None if unknown.
    """
    sample = sample_of(values)
    if not sample.size:
        return Window(0.0, 0.0)
    if _CT_WORD.search(channel) or sample.min() < _AIR_HU:
        return ct_window(_organ(sample, None if labelled is None else sample_of(values[labelled])))
    return Window(*_body_range(sample))


def sample_of(values: np.ndarray) -> np.ndarray:
    """About 100,000 evenly spaced finite values; an odd step does not always meet the same columns."""
    sample = values.ravel(order="K")[:: max(1, values.size // _SAMPLES) | 1]
    return sample[np.isfinite(sample)]


def _organ(sample: np.ndarray, labelled: np.ndarray | None) -> str:
    """The organ whose range has the labelled values; without labels brain for a head, which has little fat."""
    fat, tissue = (np.count_nonzero((sample > low) & (sample < high)) for low, high in (_FAT_HU, _TISSUE_HU))
    is_trunk = fat > _FAT_SHARE * (fat + tissue)
    if labelled is None or not labelled.size:
        return "soft tissue" if is_trunk or not tissue else "brain"
    low, high = np.percentile(labelled, (5, 95))
    for name, _, _, (lowest, highest) in _ORGANS:
        if lowest <= low and high <= highest and not (name == "brain" and is_trunk):
            return name
    return "soft tissue"


def _body_range(sample: np.ndarray) -> tuple[float, float]:
    """0.5 percentile of all but the background, 99.5 percentile of the body, which is brighter than the average.

    A constant background, such as 0 around a stripped skull, is most of the values that equal the smallest or 0; noise
    around a head is not left out below, but would move the upper end.
    """
    background = sample == (0 if np.count_nonzero(sample == 0) > 0.02 * sample.size else sample.min())
    inside = sample[~background] if not background.all() else sample
    body = inside[inside > inside.mean()]
    low = float(np.percentile(inside, 0.5))
    high = float(np.percentile(body, 99.5)) if body.size else float(inside.max())
    return low, max(high, low)
