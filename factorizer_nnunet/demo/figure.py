"""A picture of held-out patients: two modalities, the reference and the ensemble's prediction next to each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure  # rather than pyplot: no display and no global state
from matplotlib.patches import Patch

from factorizer_nnunet.dataset_conversion.spec import Release
from factorizer_nnunet.evaluation.overlap import dice_of_regions
from factorizer_nnunet.imaging.volume import read_volume

COLOURS = {1: ("edema", "#2ca25f"), 2: ("necrotic core", "#3b6fd4"), 3: ("enhancing tumor", "#ffd92f")}
MAX_ROWS = 3
SHOWN_CHANNELS = (1, 3)  # T1ce and FLAIR: the core stands out in one, the whole tumour in the other


def draw_figure(release: Release, images: Path, references: Path, predictions: Path, target: Path) -> None:
    """Draw the first patients of `references`, each in the axial slice with most tumour core, to a PNG file.

    Args:
        images: nnU-Net's imagesTs.
        references, predictions: segmentations with nnU-Net's label values, under the same names.
    """
    paths = sorted(references.glob("*.nii.gz"))[:MAX_ROWS]
    titles = [release.channels[channel].name for channel in SHOWN_CHANNELS] + ["truth", "five-fold ensemble"]
    figure = Figure(figsize=(2.6 * len(titles), 3.0 * len(paths)))
    axes = figure.subplots(len(paths), len(titles), squeeze=False)
    for row, path in zip(axes, paths, strict=True):
        case = path.name.removesuffix(".nii.gz")
        reference, predicted = read_volume(path).values, read_volume(predictions / path.name).values
        level = int((reference >= 2).sum(axis=(0, 1)).argmax())
        volumes = [read_volume(images / f"{case}_{channel:04d}.nii.gz").values for channel in SHOWN_CHANNELS]
        grays = [_window(volume)[..., level].T for volume in volumes]
        row[0].set_ylabel(case, fontsize=9)
        for axis, gray in zip(row, [*grays, grays[0], grays[0]], strict=True):
            axis.imshow(gray, cmap="gray", interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        for axis, labels in ((row[2], reference), (row[3], predicted)):
            axis.imshow(_overlay(labels[..., level].T), interpolation="nearest")
        dice = dice_of_regions(predicted, reference, release.schemes[0].regions, None)
        lines = [f"{region}: Dice {'–' if value is None else f'{value:.2f}'}" for region, value in dice.items()]
        row[3].set_xlabel("\n".join(lines), fontsize=8)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in COLOURS.values()],
        loc="lower center",
        ncols=len(COLOURS),
        frameon=False,
        fontsize=9,
    )
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(target, dpi=110, format="png")


def _window(volume: np.ndarray) -> np.ndarray:
    """Scale to 0 … 1 between black and the 99.5th percentile of the brain."""
    return np.clip(volume / np.percentile(volume[volume > 0], 99.5), 0, 1)


def _overlay(labels: np.ndarray) -> np.ndarray:
    """Return half-transparent colours of a label slice, (y, x, 4)."""
    colours = np.zeros((*labels.shape, 4))
    for value, (_, colour) in COLOURS.items():
        colours[labels == value] = (*to_rgb(colour), 0.6)
    return colours
