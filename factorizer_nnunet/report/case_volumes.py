"""The volumes of a case as they are shown: all on the reference's grid, with a window for each channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from factorizer_nnunet.evaluation.reading import PIXELS, read_labels, read_pixels
from factorizer_nnunet.imaging.channels import display_channel
from factorizer_nnunet.imaging.checks import grid_problem
from factorizer_nnunet.imaging.content import content_box
from factorizer_nnunet.imaging.grid import Grid, cropped
from factorizer_nnunet.imaging.window import window_of
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.pages.viewer import ShownCase, ShownImage, ShownMap
from factorizer_nnunet.report.results import ResultCase
from factorizer_nnunet.report.study import Group


@dataclass(frozen=True)
class CaseVolumes:
    """What is shown of a case, cropped to what is not background."""

    images: list[ShownImage]  # of all channels; a black one if there are none
    shown: int  # the image to show first
    segmentations: dict[str, np.ndarray]  # reference and predictions by title, (x, y, z)
    grid: Grid
    oriented: bool  # whether the file says where the patient's sides are
    first: tuple[int, int, int]  # voxel of the files that is the first one here
    file_size: tuple[int, ...]  # of the files, (x, y, z)

    @property
    def image(self) -> ShownImage:
        """The image to show first."""
        return self.images[self.shown]

    @property
    def filled(self) -> np.ndarray:
        """Where the reference or a prediction is not background, bool, (x, y, z)."""
        return np.logical_or.reduce([labels != 0 for labels in self.segmentations.values()])

    def in_viewer(self, number: int, maps: Sequence[ShownMap] = ()) -> ShownCase:
        """The case for the viewer, as the one of this number in the page's list."""
        return ShownCase(
            number=number,
            grid=self.grid,
            images=self.images,
            start=self.shown,
            segmentations=self.segmentations,
            oriented=self.oriented,
            maps=maps,
            first=self.first,
            file_size=self.file_size,
        )


def read_case(group: Group, case: str, channel: int | None, ignore_geometry: bool) -> CaseVolumes:
    """Read all files of a case.

    Args:
        group: the results.
        case: its name.
        channel: to show first, counted from 0; None takes the one that the data set names, or that with most contrast.
        ignore_geometry: take files of the same shape as if their voxels lay in the same places.

    Raises:
        OSError, RuntimeError, ValueError, IndexError: a file cannot be read or has another grid.
    """
    cases = [group.case_of(scored, case) for scored in group.scored]
    predictions = {scored.title: one.prediction for scored, one in zip(group.scored, cases, strict=True)}
    return read_volumes(cases[0], predictions, group.scored[0].result.dataset, channel, ignore_geometry)


def read_volumes(
    case: ResultCase, predictions: Mapping[str, Path], dataset: DatasetJson, channel: int | None, ignore_geometry: bool
) -> CaseVolumes:
    """Read reference and images of a case, and predictions by title; otherwise as ``read_case``."""
    reference, grid = _labels(case.reference)
    segmentations = {"reference": reference} | {
        title: _on_grid(*_labels(file), file, grid, ignore_geometry) for title, file in predictions.items()
    }
    files = case.images
    images = [_on_grid(*read_image(file), file, grid, ignore_geometry) for file in files] or [np.zeros_like(reference)]
    wanted = dataset.display_channel if channel is None else channel
    if channel is None and wanted is not None and files and not images[wanted].any():
        wanted = None  # this case lacks it
    shown = wanted if files and wanted is not None else display_channel(images, reference > 0)
    names = _channel_names(dataset.channel_names, len(files))
    box = content_box(images, list(segmentations.values()))
    return CaseVolumes(
        [
            ShownImage(name, image[box], window_of(image, name, reference > 0))
            for name, image in zip(names, images, strict=True)
        ],
        shown,
        {title: volume[box] for title, volume in segmentations.items()},
        cropped(grid, box),
        not case.reference.name.lower().endswith(PIXELS),
        (box[0].start, box[1].start, box[2].start),
        grid.size,
    )


def _channel_names(named: Sequence[str], count: int) -> list[str]:
    """A name for each channel, all different: several may be called CT."""
    if not count:
        return ["no image"]
    names = [named[n] if n < len(named) else f"channel {n}" for n in range(count)]
    return [f"{name} ({n})" if names.count(name) > 1 else name for n, name in enumerate(names)]


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


def read_image(path: Path) -> tuple[np.ndarray, Grid]:
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
