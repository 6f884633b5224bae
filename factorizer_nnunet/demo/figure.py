"""A picture of held-out patients: two modalities, the reference and the ensemble's prediction next to each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure  # rather than pyplot: no display and no global state
from matplotlib.patches import Patch

from factorizer_nnunet.dataset_conversion.spec import Release
from factorizer_nnunet.evaluation.overlap import dice_of_regions
from factorizer_nnunet.imaging.planes import AXIAL, fullest_slice, slice_labels, slice_picture, slice_position
from factorizer_nnunet.imaging.volume import read_volume
from factorizer_nnunet.imaging.window import window_of
from factorizer_nnunet.pages.palette import COLOURS

LABELS = dict(enumerate(zip(("edema", "necrotic core", "enhancing tumor"), COLOURS, strict=False), start=1))
MAX_ROWS = 3
SHOWN_CHANNELS = (1, 3)  # T1ce and FLAIR: the core stands out in one, the whole tumour in the other


def draw_figure(release: Release, images: Path, references: Path, predictions: Path, target: Path) -> None:
    """Draw the first patients of `references`, each in the axial slice with most tumour core, to a PNG file.

    Args:
        images: nnU-Net's imagesTs.
        references, predictions: segmentations with nnU-Net's label values, under the same names.
    """
    paths = sorted(references.glob("*.nii.gz"))[:MAX_ROWS]
    names = [release.channels[channel].name for channel in SHOWN_CHANNELS]
    titles = [*names, f"truth on {names[-1]}", f"ensemble on {names[-1]}"]
    figure = Figure(figsize=(2.6 * len(titles), 3.0 * len(paths)))
    axes = figure.subplots(len(paths), len(titles), squeeze=False)
    for row, path in zip(axes, paths, strict=True):
        case = path.name.removesuffix(".nii.gz")
        volume = read_volume(path)
        reference, predicted, grid = volume.values, read_volume(predictions / path.name).values, volume.grid
        level = fullest_slice(reference >= 2, AXIAL, grid)
        channels = [read_volume(images / f"{case}_{channel:04d}.nii.gz").values for channel in SHOWN_CHANNELS]
        windows = [window_of(values, "", reference > 0) for values in channels]
        grays = [
            slice_picture(values, AXIAL, grid, level, (window.low, window.high))
            for values, window in zip(channels, windows, strict=True)
        ]
        row[0].set_ylabel(f"{case}\naxial, {slice_position(AXIAL, grid, level)}", fontsize=8)
        for axis, gray in zip(row, [*grays, grays[-1], grays[-1]], strict=True):
            axis.imshow(gray, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            _write_sides(axis)
        for axis, window in zip(row, windows, strict=False):
            axis.set_xlabel(f"window {window.text}", fontsize=7)
        for axis, labels in ((row[2], reference), (row[3], predicted)):
            axis.imshow(_overlay(slice_labels(labels, AXIAL, grid, level)), interpolation="nearest")
        dice = dice_of_regions(predicted, reference, release.schemes[0].regions, None)
        lines = [f"{region}: Dice {'–' if value is None else f'{value:.2f}'}" for region, value in dice.items()]
        row[3].set_xlabel("\n".join(lines), fontsize=8)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in LABELS.values()],
        loc="lower center",
        ncols=len(LABELS),
        frameon=False,
        fontsize=9,
    )
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(target, dpi=110, format="png")


def _write_sides(axis: Axes) -> None:
    """The letters of the patient's sides, in the middle of the edges."""
    places = (
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.98, "center", "top"),
        (0.5, 0.02, "center", "bottom"),
    )
    for letter, (x, y, across, along) in zip(AXIAL.sides, places, strict=True):
        axis.text(x, y, letter, color="white", fontsize=7, ha=across, va=along, transform=axis.transAxes)


def _overlay(labels: np.ndarray) -> np.ndarray:
    """Half-transparent colours of a label slice, (rows, columns, 4)."""
    colours = np.zeros((*labels.shape, 4))
    for value, (_, colour) in LABELS.items():
        colours[labels == value] = (*to_rgb(colour), 0.6)
    return colours
