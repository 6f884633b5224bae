"""Pictures of the worst, median and best cases: image, reference and all predictions in three planes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from tqdm import tqdm

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.reading import PIXELS, read_labels, read_pixels
from factorizer_nnunet.evaluation.surface import bounding_box
from factorizer_nnunet.imaging.checks import grid_problem
from factorizer_nnunet.imaging.grid import Grid
from factorizer_nnunet.imaging.planes import (
    PLANES,
    axis_across,
    fullest_slice,
    intensity_range,
    slice_labels,
    slice_picture,
)
from factorizer_nnunet.pages.markup import breakable, legend, text_of
from factorizer_nnunet.pages.pictures import COLOURS, data_uri, draw, side_for
from factorizer_nnunet.report.charts.axes import model_class
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


def gallery(group: Group, chosen: Mapping[str, str], channel: int = 0, ignore_geometry: bool = False) -> str:
    """The pictures of cases, chosen for some reason, as HTML.

    Args:
        group: the results.
        chosen: the reason for each case to show.
        channel: of the image, counted from 0.
        ignore_geometry: draw files of the same shape over each other, wherever their voxels lie.

    Raises:
        UserError: files that cannot be read or have different grids; all in one message.
    """
    count = len(chosen) * len(PLANES) * (2 + len(group.scored))
    side = min(side_for(count), _MAX_SIDE)
    problems: list[str] = []
    figures = []
    for name, why in tqdm(chosen.items(), desc="pictures", unit="case", leave=False):
        try:
            figures.append(_figure(group, name, why, channel, side, ignore_geometry))
        except (OSError, RuntimeError, ValueError, IndexError) as error:  # of SimpleITK, and ours below
            problems.append(f"{name}: {str(error).strip().splitlines()[-1]}")
    if problems:
        raise UserError("\n  ".join(["pictures of these cases cannot be drawn:", *problems]))
    pictures = f'<div class="gallery" style="--columns:{2 + len(group.scored)}">{"".join(figures)}</div>'
    return legend(zip(group.regions, COLOURS, strict=False)) + pictures


def _figure(group: Group, name: str, why: str, channel: int, side: int, ignore_geometry: bool) -> str:
    case = group.case_of(group.scored[0], name)
    heads = {"image": "", "reference": "", **{one.title: f" {model_class(one.place)}" for one in group.scored}}
    cells = [f'<span class="head{kind}">{breakable(head)}</span>' for head, kind in heads.items()]
    for plane, pictures in _pictures(group, name, channel, side, ignore_geometry):
        for head, jpeg in zip(heads, pictures, strict=True):
            alt = text_of(f"{name}, {plane}, {head}")
            cells.append(f'<img src="{data_uri(jpeg)}" alt="{alt}" loading="lazy" decoding="async">')
    number = group.number_of[name]
    fold = f' <span class="soft">fold {text_of(case.fold)}</span>' if case.fold else ""
    return (
        f'<figure class="case" id="picture-{number}" data-case="{number}"><figcaption><b>{breakable(name)}</b> '
        f'<span class="why">{text_of(why)}</span>{fold}</figcaption><div class="planes">{"".join(cells)}</div>'
        f'<p class="dice">{"".join(_dice(group, scored, name) for scored in group.scored)}</p></figure>'
    )


def _pictures(
    group: Group, case: str, channel: int, side: int, ignore_geometry: bool
) -> Iterator[tuple[str, list[bytes]]]:
    """For each plane, JPEG files of the image (black if there is none), the reference and the predictions."""
    cases = [group.case_of(scored, case) for scored in group.scored]
    reference, grid = _labels(cases[0].reference)
    predictions = [_on_grid(*_labels(one.prediction), one.prediction, grid, ignore_geometry) for one in cases]
    image = np.zeros_like(reference)
    if cases[0].images:
        file = cases[0].images[channel]
        image = _on_grid(*_image(file), file, grid, ignore_geometry)
    window = intensity_range(image)
    # Skull-stripped brains fill only a part of their volume.
    box = bounding_box(_any_filled([image, reference, *predictions])) or (slice(None),) * 3
    image, *segmentations = (volume[box] for volume in (image, reference, *predictions))
    size, is_flat = grid.size, min(grid.size) == 1  # of the complete image
    grid = replace(grid, size=image.shape)
    labels = group.scored[0].scores.labels
    largest_first = sorted(group.regions, key=lambda region: -int(np.isin(segmentations[0], labels[region]).sum()))
    colours = [COLOURS[group.regions.index(region) % len(COLOURS)] for region in largest_first]
    filled = _any_filled(segmentations)
    for name, plane in PLANES.items():
        if is_flat and size[axis_across(plane, grid)] > 1:
            continue  # a 2D image has a single plane
        number = fullest_slice(filled, plane, grid)
        grey = slice_picture(image, plane, grid, number, window)
        slices = [slice_labels(volume, plane, grid, number) for volume in segmentations]
        outlined = [[np.isin(one, labels[region]) for region in largest_first] for one in slices]
        yield name, [draw(grey, masks, side, colours, thickness=2) for masks in ([], *outlined)]


def _any_filled(volumes: Sequence[np.ndarray]) -> np.ndarray:
    return np.logical_or.reduce([volume != 0 for volume in volumes])


def _dice(group: Group, scored: Scored, case: str) -> str:
    dice = scored.scores.metric("dice")
    values = ", ".join(
        f"{text_of(region)} {dice.shown(scored.scores.value(case, region, dice.key))}" for region in group.regions
    )
    name = f'<b class="{model_class(scored.place)}">{text_of(scored.title)}</b> ' if len(group.scored) > 1 else ""
    return f"<span>{name}Dice: {values}</span>"


def _on_grid(values: np.ndarray, own: Grid, path: Path, grid: Grid, ignore_geometry: bool) -> np.ndarray:
    """Voxels of a file, which must have this grid, or at least its shape."""
    different = grid_problem(own, grid, "the reference", ignore_geometry)
    if different is not None:
        raise ValueError(f"{path}: {different}")
    return values


def _labels(path: Path) -> tuple[np.ndarray, Grid]:
    """Labels (x, y, z) and grid, as they were scored; a 2D image becomes a single slice."""
    image = read_labels(path)
    return image.labels.reshape(image.grid.size), image.grid


def _image(path: Path) -> tuple[np.ndarray, Grid]:
    """Voxels (x, y, z) and grid of an image in any format that nnU-Net reads; a 2D image becomes a single slice."""
    if path.name.lower().endswith(PIXELS):
        values, grid = read_pixels(path, is_image=True)
        return values.reshape(grid.size), grid
    image = sitk.ReadImage(str(path))
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    values = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        values = values.mean(axis=-1)  # colours as brightness
    grid = Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return values.transpose(2, 1, 0), grid
