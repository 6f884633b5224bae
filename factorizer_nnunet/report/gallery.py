"""Pictures of the worst, middling and best cases: image, reference and every model's prediction in three planes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from tqdm import tqdm

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.surface import bounding_box
from factorizer_nnunet.imaging.grid import Grid, geometry_difference
from factorizer_nnunet.imaging.planes import (
    PLANES,
    axis_across,
    fullest_slice,
    intensity_range,
    slice_labels,
    slice_picture,
)
from factorizer_nnunet.pages.markup import breakable, text_of
from factorizer_nnunet.pages.pictures import COLOURS, data_uri, draw, side_for
from factorizer_nnunet.report.charts.axes import model_class
from factorizer_nnunet.report.study import Group, Scored

_EACH = 3  # cases of each kind
_SIDE = 220  # of a picture in pixels, at most


@dataclass(frozen=True)
class Chosen:
    """A case to show and why, such as "worst"."""

    case: str
    why: str


def choose_cases(dice: np.ndarray, names: Sequence[str]) -> list[Chosen]:
    """Worst, middling and best cases, no case twice, and those in which several models differ most.

    Args:
        dice: (models, cases), mean over regions, NaN where it is not defined.
        names: of the cases.
    """
    mean = dice.mean(axis=0)
    order = [int(case) for case in np.argsort(mean, kind="stable") if not np.isnan(mean[case])]
    each = min(_EACH, len(order) // 3) or 1
    middle = max((len(order) - each) // 2, 0)
    kinds = {"worst": order[:each], "median": order[middle : middle + each], "best": order[-each:][::-1]}
    if dice.shape[0] > 1:
        spread = np.ptp(dice, axis=0)
        kinds["models differ most"] = [
            int(case) for case in np.argsort(-spread, kind="stable") if not np.isnan(mean[case])
        ]
    chosen: dict[int, Chosen] = {}
    for why, cases in kinds.items():
        for case in [case for case in cases if case not in chosen][:each]:
            chosen[case] = Chosen(names[case], why)
    return list(chosen.values())


def gallery(group: Group, chosen: Sequence[Chosen], case_numbers: Mapping[str, int], channel: int = 0) -> str:
    """The pictures as HTML.

    Args:
        group: whose cases these are.
        chosen: which of them.
        case_numbers: the place of each case in the page's list.
        channel: of the image, counted from 0.

    Raises:
        UserError: files that cannot be read or do not lie on one another; all of them.
    """
    count = len(chosen) * len(PLANES) * (2 + len(group.scored))
    side = min(side_for(count), _SIDE)
    problems: list[str] = []
    figures = []
    for one in tqdm(chosen, desc="pictures", unit="case", leave=False):
        try:
            figures.append(_figure(group, one, case_numbers[one.case], channel, side))
        except (RuntimeError, ValueError, IndexError) as error:  # SimpleITK's, and ours below
            problems.append(f"{one.case}: {str(error).strip().splitlines()[-1]}")
    if problems:
        raise UserError("\n  ".join(["these cases cannot be drawn:", *problems]))
    return f'{_legend(group)}<div class="gallery" style="--columns:{2 + len(group.scored)}">{"".join(figures)}</div>'


def _legend(group: Group) -> str:
    items = [
        f'<span><i style="background:{colour}"></i>{text_of(region)}</span>'
        for region, colour in zip(group.regions, COLOURS, strict=False)
    ]
    return f'<div class="legend">{"".join(items)}</div>'


def _figure(group: Group, chosen: Chosen, number: int, channel: int, side: int) -> str:
    cases = [group.case_of(scored, chosen.case) for scored in group.scored]
    reference, grid = _volume(cases[0].reference)
    predictions = [_on_grid(case.prediction, grid) for case in cases]
    image = _on_grid(cases[0].images[channel], grid) if cases[0].images else None
    window = (0.0, 1.0) if image is None else intensity_range(image)
    content = np.logical_or.reduce(
        [v != 0 for v in (reference, *predictions)] + ([] if image is None else [image != 0])
    )
    # Skull-stripped heads fill little of their volume.
    box = bounding_box(content) or (slice(None),) * 3
    reference, predictions = reference[box], [prediction[box] for prediction in predictions]
    image = None if image is None else image[box]
    grid = replace(grid, size=reference.shape)
    labels = group.scored[0].scores.labels
    largest_first = sorted(group.regions, key=lambda region: -int(np.isin(reference, labels[region]).sum()))
    colours = [COLOURS[group.regions.index(region) % len(COLOURS)] for region in largest_first]
    everything = np.logical_or.reduce([volume != 0 for volume in (reference, *predictions)])
    heads = {"image": "", "reference": "", **{one.title: f" {model_class(one.place)}" for one in group.scored}}
    cells = [f'<span class="head{kind}">{breakable(head)}</span>' for head, kind in heads.items()]
    for name, plane in PLANES.items():
        if grid.size[axis_across(plane, grid)] == max(grid.size) and min(grid.size) == 1:
            continue  # a 2D image has one plane
        level = fullest_slice(everything, plane, grid)
        shown = reference if image is None else image
        grey = slice_picture(shown if image is not None else np.zeros_like(reference), plane, grid, level, window)
        for head, volume in zip(heads, (None, reference, *predictions), strict=True):
            masks = [] if volume is None else [
                np.isin(slice_labels(volume, plane, grid, level), labels[region]) for region in largest_first
            ]  # fmt: skip
            alt = f"{chosen.case}, {name}, {head}"
            jpeg = draw(grey, masks, side, colours, thickness=2)
            cells.append(f'<img src="{data_uri(jpeg)}" alt="{text_of(alt)}" loading="lazy" decoding="async">')
    fold = f' <span class="soft">fold {text_of(cases[0].fold)}</span>' if cases[0].fold else ""
    return (
        f'<figure class="case" id="picture-{number}" data-case="{number}"><figcaption><b>{breakable(chosen.case)}</b> '
        f'<span class="why">{text_of(chosen.why)}</span>{fold}</figcaption><div class="planes">{"".join(cells)}</div>'
        f'<p class="dice">{"".join(_dice(group, scored, chosen.case) for scored in group.scored)}</p></figure>'
    )


def _dice(group: Group, scored: Scored, case: str) -> str:
    values = [(region, scored.scores.value(case, region, "dice")) for region in group.regions]
    told = ", ".join(
        f"{text_of(region)} {'–' if np.isnan(value) else format(value, '.3f')}" for region, value in values
    )
    name = f'<b class="{model_class(scored.place)}">{text_of(scored.title)}</b> ' if len(group.scored) > 1 else ""
    return f"<span>{name}Dice: {told}</span>"


def _on_grid(path: Path, grid: Grid) -> np.ndarray:
    """Voxels of a file that must lie on a grid."""
    values, own = _volume(path)
    different = geometry_difference(own, grid)
    if different is not None:
        raise ValueError(f"{path}: {different} of the reference")
    return values


def _volume(path: Path) -> tuple[np.ndarray, Grid]:
    """Voxels (x, y, z) of any file that SimpleITK reads, one of 2D as a single slice, and their grid."""
    image = sitk.ReadImage(str(path))
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    values = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        values = values.mean(axis=-1)  # colours as brightness
    grid = Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return values.transpose(2, 1, 0), grid
