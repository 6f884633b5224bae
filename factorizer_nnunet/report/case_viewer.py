"""The cases that can be opened from a report's pictures and its table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.pages.viewer import ShownCase, viewer
from factorizer_nnunet.report.case_volumes import read_case
from factorizer_nnunet.report.gallery import choose_cases
from factorizer_nnunet.report.sections_scores import mean_dice
from factorizer_nnunet.report.study import Group


@dataclass(frozen=True)
class Display:
    """How a report shows images."""

    channel: int | None = None  # shown first, counted from 0; None chooses one that shows the labels
    ignore_geometry: bool = False  # show files of the same shape over each other, wherever their voxels lie
    viewer_cases: int = 20  # whose volumes are stored in the page
    viewer_mb: float = 30.0  # all volumes together

    def __post_init__(self) -> None:
        if self.viewer_cases < 0 or not 0 <= self.viewer_mb < float("inf"):
            raise UserError(
                f"invalid limits of the viewer: {self.viewer_cases} cases, {self.viewer_mb:g} MB; give numbers from 0"
            )


def case_viewer(groups: Sequence[Group], display: Display) -> str:
    """The viewer as HTML, with the pictured cases and then those with the lowest Dice."""
    regions = {region: groups[0].scored[0].scores.labels[region] for region in groups[0].regions}
    count = len(groups[0].number_of)
    return viewer(_cases(groups, display), regions, count, display.viewer_mb)


def _cases(groups: Sequence[Group], display: Display) -> Iterator[ShownCase]:
    left = display.viewer_cases
    for group in groups:
        dice = mean_dice(group)
        by_dice = [group.cases[n] for n in np.argsort(np.nan_to_num(dice.mean(axis=0), nan=-1), kind="stable")]
        for name in list(dict.fromkeys([*choose_cases(dice, group.cases), *by_dice]))[:left]:
            read = read_case(group, name, display.channel, display.ignore_geometry)
            number = group.number_of[name]
            yield ShownCase(number, name, read.grid, read.images, read.shown, read.segmentations, read.oriented)
            left -= 1
