"""Pictures of the worst, median and best cases: image, reference and all predictions in three planes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.imaging.planes import (
    PLANES,
    Plane,
    axis_across,
    fullest_slice,
    planes_of,
    slice_labels,
    slice_picture,
    slice_position,
)
from factorizer_nnunet.pages.markup import breakable, dash, legend, text_of
from factorizer_nnunet.pages.pictures import data_uri, draw, side_for
from factorizer_nnunet.report.case_volumes import CaseVolumes, read_case
from factorizer_nnunet.report.charts.axes import model_class
from factorizer_nnunet.report.sections_scores import UNDEFINED
from factorizer_nnunet.report.study import Group, Scored

_EACH = 3  # cases per reason
_MAX_SIDE = 220  # of a picture in pixels


def choose_cases(dice: np.ndarray, names: Sequence[str]) -> dict[str, str]:
    """The worst, median and best cases, and those in which models differ most, with the reason, such as "worst".

    dice: (models, cases), mean over regions, NaN if undefined.
    """
    mean, spread = dice.mean(axis=0), np.ptp(dice, axis=0)
    order = [names[case] for case in np.argsort(mean, kind="stable") if not np.isnan(mean[case])]
    each = min(_EACH, len(order) // 3) or 1
    middle = max((len(order) - each) // 2, 0)
    reasons = {"worst": order[:each], "median": order[middle : middle + each], "best": order[-each:][::-1]}
    if dice.shape[0] > 1:
        reasons["models differ most"] = [names[n] for n in np.argsort(-spread, kind="stable") if not np.isnan(mean[n])]
    chosen: dict[str, str] = {}
    for why, cases in reasons.items():
        chosen.update(dict.fromkeys([case for case in cases if case not in chosen][:each], why))
    return chosen


def gallery(group: Group, chosen: Mapping[str, str], channel: int | None = None, ignore_geometry: bool = False) -> str:
    """The pictures of cases, chosen for some reason, as HTML.

    Args:
        group: the results.
        chosen: the reason for each case to show.
        channel: of the image, counted from 0; None shows the one that the data set names, or that with most contrast.
        ignore_geometry: draw files of the same shape over each other, wherever their voxels lie.

    Raises:
        UserError: files that cannot be read or have different grids; all in one message.
    """
    count = len(chosen) * len(PLANES) * (2 + len(group.scored))
    side = min(side_for(count), _MAX_SIDE)
    problems: list[str] = []
    figures = []
    for name, why in tqdm(chosen.items(), desc="pictures", unit="case", leave=False, disable=None):
        try:
            figures.append(_figure(group, name, why, channel, side, ignore_geometry))
        except (OSError, RuntimeError, ValueError, IndexError) as error:  # of SimpleITK, and ours below
            problems.append(f"{name}: {str(error).strip().splitlines()[-1]}")
    if problems:
        raise UserError("\n  ".join(["pictures of these cases cannot be drawn:", *problems]))
    pictures = f'<div class="gallery" style="--columns:{2 + len(group.scored)}">{"".join(figures)}</div>'
    return legend(group.regions) + pictures


def _figure(group: Group, name: str, why: str, channel: int | None, side: int, ignore_geometry: bool) -> str:
    case = group.case_of(group.scored[0], name)
    heads = {"image": "", "reference": "", **{one.title: f" {model_class(one.place)}" for one in group.scored}}
    cells = [f'<span class="head{kind}">{breakable(head)}</span>' for head, kind in heads.items()]
    read = read_case(group, name, channel, ignore_geometry)
    labels = group.scored[0].scores.labels
    cells += picture_cells(name, heads, pictures_of([labels[one] for one in group.regions], read, side))
    number = group.number_of[name]
    fold = f' <span class="soft">fold {text_of(case.fold)},</span>' if case.fold else ""
    shown = f"{read.image.name}, window {read.image.window.text}" if case.images else "no image"
    return (
        f'<figure class="case" id="picture-{number}" data-case="{number}"><figcaption><b>{breakable(name)}</b> '
        f'<span class="why">{text_of(why)}</span>{fold} <span class="soft">{text_of(shown)}</span></figcaption>'
        f'<div class="planes" data-view="{number}" role="button" tabindex="0" '
        f'aria-label="open {text_of(name)}">{"".join(cells)}</div>'
        f'<p class="dice">{"".join(_dice(group, scored, name) for scored in group.scored)}</p></figure>'
    )


def picture_cells(case: str, heads: Iterable[str], pictures: Iterable[tuple[Plane, str, list[bytes]]]) -> Iterator[str]:
    """The pictures of ``pictures_of`` as HTML, row by row, described by the heads of their columns."""
    columns = list(heads)
    for plane, position, jpegs in pictures:
        for head, jpeg in zip(columns, jpegs, strict=True):
            alt = text_of(f"{case}, {plane.name}, {position}, {head}")
            yield f'<img src="{data_uri(jpeg)}" alt="{alt}">'


def pictures_of(
    regions: Sequence[Sequence[int]], case: CaseVolumes, side: int, through: Sequence[int] | None = None
) -> Iterator[tuple[Plane, str, list[bytes]]]:
    """For each plane: the slice's position, and JPEG files of image, reference and predictions.

    Args:
        regions: label values of each, in the order of their colours.
        case: its volumes.
        side: of a picture in pixels.
        through: voxel (x, y, z) of the case's files to cut through; None cuts where most is labelled.
    """
    segmentations, window = list(case.segmentations.values()), case.image.window
    for plane in planes_of(case.grid):
        axis = axis_across(plane, case.grid)
        number = fullest_slice(case.filled, plane, case.grid) if through is None else through[axis] - case.first[axis]
        number = min(max(number, 0), case.grid.size[axis] - 1)
        grey = slice_picture(case.image.values, plane, case.grid, number, window.ends)
        slices = [slice_labels(volume, plane, case.grid, number) for volume in segmentations]
        outlined = [[np.isin(one, values) for values in regions] for one in slices]
        position = slice_position(plane, case.grid, number) if case.oriented else ""
        known = plane if case.oriented else None
        pictures = [draw(grey, masks, side, 2, known, position) for masks in ([], *outlined)]
        yield plane, position or "orientation unknown", pictures


def _dice(group: Group, scored: Scored, case: str) -> str:
    dice = scored.scores.metric("dice")
    values = ", ".join(
        f"{text_of(region)} {dash(UNDEFINED) if math.isnan(value) else dice.shown(value)}"
        for region in group.regions
        for value in [scored.scores.value(case, region, dice.key)]
    )
    name = f'<b class="{model_class(scored.place)}">{text_of(scored.title)}</b> ' if len(group.scored) > 1 else ""
    return f"<span>{name}Dice: {values}</span>"
