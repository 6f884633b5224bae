"""A picture of held-out patients: two modalities, the reference and the ensemble's prediction next to each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure  # rather than pyplot: no display and no global state

from factorizer_nnunet.dataset_conversion.spec import Release
from factorizer_nnunet.evaluation.overlap import dice_of_regions
from factorizer_nnunet.imaging.planes import AXIAL, fullest_slice, slice_labels, slice_picture, slice_position
from factorizer_nnunet.imaging.volume import read_volume
from factorizer_nnunet.imaging.window import window_of
from factorizer_nnunet.pages.figures import add_legend
from factorizer_nnunet.pages.pictures import annotated

MAX_ROWS = 3
SHOWN_CHANNELS = (1, 3)  # T1ce and FLAIR: the core stands out in one, the whole tumor in the other
_SIDE = 240  # of a picture in pixels


def draw_figure(release: Release, images: Path, references: Path, predictions: Path, target: Path) -> None:
    """Draw the first patients of `references`, each in the axial slice with most tumor core, to a PNG file.

    Args:
        release: names the channels and the regions.
        images: nnU-Net's imagesTs.
        references, predictions: segmentations with nnU-Net's label values, under the same names.
        target: the file.
    """
    paths = sorted(references.glob("*.nii.gz"))[:MAX_ROWS]
    names = [release.channels[channel].name for channel in SHOWN_CHANNELS]
    titles = [*names, f"truth on {names[-1]}", f"ensemble on {names[-1]}"]
    regions = release.schemes[0].regions
    figure = Figure(figsize=(2.6 * len(titles), 3.0 * len(paths)))
    axes = figure.subplots(len(paths), len(titles), squeeze=False)
    for row, path in zip(axes, paths, strict=True):
        case = path.name.removesuffix(".nii.gz")
        volume = read_volume(path)
        reference, predicted, grid = volume.values, read_volume(predictions / path.name).values, volume.grid
        level = fullest_slice(reference >= 2, AXIAL, grid)
        channels = [read_volume(images / f"{case}_{channel:04d}.nii.gz").values for channel in SHOWN_CHANNELS]
        windows = [window_of(values, "", reference > 0) for values in channels]
        greys = [
            slice_picture(values, AXIAL, grid, level, window.ends)
            for values, window in zip(channels, windows, strict=True)
        ]
        slices = [slice_labels(labels, AXIAL, grid, level) for labels in (reference, predicted)]
        outlined = [[np.isin(labels, values) for values in regions.values()] for labels in slices]
        position = slice_position(AXIAL, grid, level)
        row[0].set_ylabel(f"{case}\n{AXIAL.name}, {position}", fontsize=8)
        for axis, grey, masks in zip(row, [*greys, greys[-1], greys[-1]], [[], [], *outlined], strict=True):
            axis.imshow(annotated(grey, masks, _SIDE, 2, AXIAL, position))
            axis.set_xticks([])
            axis.set_yticks([])
        for axis, window in zip(row, [*windows, windows[-1]], strict=False):
            axis.set_xlabel(f"window {window.text}", fontsize=7)
        dice = dice_of_regions(predicted, reference, regions, None)
        lines = [f"{region}: Dice {'–' if value is None else f'{value:.2f}'}" for region, value in dice.items()]
        row[3].set_xlabel("\n".join(lines), fontsize=8)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    add_legend(figure, dict(enumerate(regions)), 9)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(target, dpi=110, format="png")
