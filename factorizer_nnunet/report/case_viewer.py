"""The cases that can be opened from a report's pictures and its table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.pages.limits import ViewerLimits
from factorizer_nnunet.pages.viewer import ShownCase, stored_case, viewer
from factorizer_nnunet.report.case_volumes import read_case
from factorizer_nnunet.report.gallery import choose_cases
from factorizer_nnunet.report.results import Result
from factorizer_nnunet.report.sections_scores import mean_dice
from factorizer_nnunet.report.study import Group


@dataclass(frozen=True)
class Display:
    """How a report shows images."""

    channel: int | None = None  # shown first, counted from 0; None chooses one that shows the labels
    ignore_geometry: bool = False  # show files of the same shape over each other, wherever their voxels lie
    limits: ViewerLimits = ViewerLimits()

    def check_channel(self, results: Sequence[Result]) -> None:
        """Check that the images of all results have the channel to show first; raises UserError if not."""
        channels = min((len(case.images) for result in results for case in result.cases if case.images), default=None)
        if self.channel is not None and (self.channel < 0 or channels is not None and self.channel >= channels):
            raise UserError(f"invalid channel {self.channel}: the images have channels 0 to {(channels or 1) - 1}")


def case_viewer(groups: Sequence[Group], display: Display) -> str:
    """The viewer as HTML, with the pictured cases and then those with the lowest Dice."""
    regions = {region: groups[0].scored[0].scores.labels[region] for region in groups[0].regions}
    return viewer(map(stored_case, _cases(groups, display)), regions, list(groups[0].number_of), display.limits)


def _cases(groups: Sequence[Group], display: Display) -> Iterator[ShownCase]:
    for group in groups:
        dice = mean_dice(group)
        by_dice = [group.cases[n] for n in np.argsort(np.nan_to_num(dice.mean(axis=0), nan=-1), kind="stable")]
        for name in list(dict.fromkeys([*choose_cases(dice, group.cases), *by_dice])):
            read = read_case(group, name, display.channel, display.ignore_geometry)
            yield read.in_viewer(group.number_of[name])
