"""Read every file of a case once, and say all that keeps it from being converted and all that is to be known of it.

Images that are constant or hold NaN are refused, unless their release is known for them and declares what becomes of
them: mostly they are what a broken export or download leaves, a constant channel teaches nothing, and zeros in place
of NaN would hide the damage, while SimpleITK and nnU-Net would train on both without a word. Whoever wants the set
without such cases has ``--skip-invalid``, which lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from factorizer_nnunet.dataset_conversion.cases import Case, Problem
from factorizer_nnunet.dataset_conversion.spec import Channel, Release
from factorizer_nnunet.dataset_conversion.thumbnail import Thumbnail
from factorizer_nnunet.imaging.grid import Grid, geometry_difference
from factorizer_nnunet.imaging.planes import (
    AXIAL,
    axis_across,
    fullest_slice,
    intensity_range,
    slice_labels,
    slice_picture,
)
from factorizer_nnunet.imaging.volume import (
    Volume,
    count_labels,
    count_not_finite,
    integer_labels,
    read_volume,
    remapped,
)

_ROUNDING_MM = 1e-4  # differences below are those of headers, which hold 32-bit numbers


@dataclass(frozen=True)
class ImageFacts:
    """What is known of one channel of a case, on the grid it is released on, and how it gets to nnU-Net.

    ``treatment`` is "copy" (byte for byte), "compress" (a file that is plain NIfTI, whatever its name), "split" (one
    image of a series), "rewrite" (repaired header, dropped axes or zeroed voxels), or "resample" (to the case's grid).
    """

    size: tuple[int, ...]  # (x, y, z)
    spacing_mm: tuple[float, ...]
    low: float  # 0.5 percentile of the voxels that are not 0, of a sample
    high: float  # 99.5 percentile
    treatment: str


@dataclass(frozen=True)
class LabelFacts:
    """What is known of a label: voxels of each value of the release, remapped, without 0."""

    counts: Mapping[int, int]
    voxel_mm3: float


@dataclass(frozen=True)
class Examined:
    """A case and all that reading its files has shown; ``images`` is empty if one of them is not usable."""

    case: Case
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    images: tuple[ImageFacts, ...]  # one for each channel
    label: LabelFacts | None
    thumbnail: Thumbnail | None


@dataclass
class _Findings:
    """What is collected while a case is read."""

    case: str
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def problem(self, path: Path, text: str) -> None:
        self.problems.append(Problem(self.case, path, text))

    def note(self, path: Path, text: str) -> None:
        self.notes.append(Problem(self.case, path, text))

    def read(self, path: Path) -> Volume | None:
        """The file's content, or None with the problem noted."""
        try:
            volume = read_volume(path)
        except OSError as error:
            self.problem(path, str(error))
            return None
        for repair in volume.repairs:
            self.note(path, repair)
        if volume.gzipped != path.name.lower().endswith(".gz"):
            self.note(path, f"is {'compressed' if volume.gzipped else 'not compressed'} in spite of its name")
        return volume


@dataclass(frozen=True)
class _Label:
    facts: LabelFacts
    grid: Grid
    slice: int  # the axial one shown
    picture: np.ndarray  # of that slice


@dataclass(frozen=True)
class _Image:
    facts: ImageFacts
    grid: Grid


def grid_channel(channels: Sequence[Channel]) -> int:
    """Which of the chosen channels gives the case's grid: the first that may not have its own."""
    return next((number for number, channel in enumerate(channels) if not channel.own_grid), 0)


def examine(release: Release, channels: Sequence[Channel], case: Case, remap: Mapping[int, int]) -> Examined:
    """Read all files of ``case``, each once and whole, so that a truncated one is found now and not in training.

    Never raises for files that are bad: that is what the problems are for. Runs in worker processes, one case at a
    time; no more than two images are held at once.

    Args:
        release: its rules for constant and non-finite images.
        channels: the chosen ones, as many as the case has images.
        case: the files.
        remap: raw label values of this case to others, before anything is made of them.
    """
    found = _Findings(case.name)
    # The label comes first: it says which slice of the image is worth a picture.
    label = None if case.label is None else _examine_label(found, case.label, remap)
    reference = grid_channel(channels)
    images: list[_Image | None] = [None] * len(channels)
    thumbnail = None
    for path in dict.fromkeys(case.images):
        volume = found.read(path)
        for number, channel in enumerate(channels):
            if volume is None or case.images[number] != path:
                continue
            part = _part(found, path, volume, channel.volume)
            if part is None:
                continue
            image = images[number] = _examine_image(found, release, path, part, channel)
            if number == reference:
                thumbnail = _thumbnail(part, image.facts, label)
    # Without the one that gives the grid, the others are still compared, so that all problems come at once.
    readable = (number for number, channel in enumerate(channels) if images[number] and not channel.own_grid)
    _compare_grids(found, case, channels, images, next(readable, reference), label)
    whole = tuple(image.facts for image in images if image is not None)
    return Examined(
        case,
        tuple(dict.fromkeys(found.problems)),  # a series that is wrong is so for each of its channels
        tuple(dict.fromkeys(found.notes)),
        whole if len(whole) == len(images) else (),
        None if label is None else label.facts,
        None if found.problems else thumbnail,
    )


def _part(found: _Findings, path: Path, volume: Volume, number: int | None) -> Volume | None:
    """The 3D image that a channel takes of a file, or None with the problem noted."""
    if number is None and volume.series is None:
        return volume
    if number is None:
        found.problem(path, f"is a series of {volume.series} images where one is expected")
    elif volume.series is None or number >= volume.series:
        found.problem(path, f"holds {volume.series or 1} images, and number {number + 1} of a series is expected")
    else:
        return volume.part(number)
    return None


def _examine_image(found: _Findings, release: Release, path: Path, volume: Volume, channel: Channel) -> _Image:
    which = "" if channel.volume is None else f"{channel.name} "
    values = volume.values
    bad = count_not_finite(values)
    treatment = _treatment(volume, channel, bad)
    if bad and release.non_finite_to_zero:
        found.note(path, f"{which}{bad} voxels are NaN or infinite; they become 0")
    elif bad:
        found.problem(path, f"{which}{bad} voxels are NaN or infinite")
    finite = np.nan_to_num(values, nan=0, posinf=0, neginf=0) if bad else values
    lowest = finite.min()
    if lowest == finite.max() and (not bad or release.non_finite_to_zero):
        text = f"{which}is constant: every voxel is {lowest:g}"
        (found.note if release.constant_allowed else found.problem)(path, text)
    facts = ImageFacts(volume.grid.size, volume.grid.spacing, *intensity_range(finite), treatment)
    return _Image(facts, volume.grid)


def _treatment(volume: Volume, channel: Channel, not_finite: int) -> str:
    if channel.volume is not None:
        return "split"
    if volume.repairs or not_finite:
        return "rewrite"
    return "copy" if volume.gzipped else "compress"


def _examine_label(found: _Findings, path: Path, remap: Mapping[int, int]) -> _Label | None:
    volume = found.read(path)
    if volume is None or (volume := _part(found, path, volume, None)) is None:
        return None
    if bad := count_not_finite(volume.values):
        found.problem(path, f"{bad} voxels are NaN or infinite")
        return None
    try:
        labels = integer_labels(volume.values)
    except ValueError as error:
        found.problem(path, str(error))
        return None
    counts = _remapped_counts(count_labels(labels), remap)
    negative = {value: number for value, number in counts.items() if value < 0}
    if negative:
        found.problem(path, f"{sum(negative.values())} voxels hold negative values: {', '.join(map(str, negative))}")
        return None
    counts.pop(0, None)
    if not counts:
        found.note(path, "empty label: every voxel is background")
    shown = fullest_slice(labels != 0, AXIAL, volume.grid)
    picture = np.minimum(remapped(slice_labels(labels, AXIAL, volume.grid, shown), remap), 255).astype(np.uint8)
    return _Label(LabelFacts(counts, volume.grid.voxel_mm3), volume.grid, shown, picture)


def _remapped_counts(counts: Mapping[int, int], remap: Mapping[int, int]) -> dict[int, int]:
    result: dict[int, int] = {}
    for value, number in counts.items():
        new = remap.get(value, value)
        result[new] = result.get(new, 0) + number
    return dict(sorted(result.items()))


def _thumbnail(volume: Volume, facts: ImageFacts, label: _Label | None) -> Thumbnail:
    grid = volume.grid
    if label is None or geometry_difference(label.grid, grid) is not None:
        shown = grid.size[axis_across(AXIAL, grid)] // 2
        image = slice_picture(volume.values, AXIAL, grid, shown, (facts.low, facts.high))
        return Thumbnail(image, np.zeros(image.shape, np.uint8))
    return Thumbnail(slice_picture(volume.values, AXIAL, grid, label.slice, (facts.low, facts.high)), label.picture)


def _compare_grids(
    found: _Findings,
    case: Case,
    channels: Sequence[Channel],
    images: list[_Image | None],
    first: int,
    label: _Label | None,
) -> None:
    """Add a problem for every file off the grid of channel `first`; images that may be off it get resampled.

    Differences within the tolerance are one note a case, on the file that differs most: a release has them throughout.
    """
    given = images[first]
    if given is None:
        return
    grid, name = given.grid, case.images[first].name
    within: dict[Path, float] = {}
    for number, (channel, image) in enumerate(zip(channels, images, strict=True)):
        if image is None:
            continue
        difference = geometry_difference(image.grid, grid)
        if difference is None:
            within[case.images[number]] = _apart_mm(image.grid, grid)
        elif channel.own_grid:
            images[number] = replace(image, facts=replace(image.facts, treatment="resample"))
        else:
            found.problem(case.images[number], f"{difference} of {name}")
    if label is not None and case.label is not None:
        difference = geometry_difference(label.grid, grid)
        if difference is None:
            within[case.label] = _apart_mm(label.grid, grid)
        else:
            found.problem(case.label, f"{difference} of {name}")
    path = max(within, key=within.__getitem__)
    if within[path] > _ROUNDING_MM:
        found.note(path, f"lies off {name} by at most {within[path]:.2g} mm, which is within the tolerance")


def _apart_mm(grid: Grid, reference: Grid) -> float:
    """How far the same voxel of two grids of one size is apart at most: at one of the corners."""
    corners = np.array(np.meshgrid(*((0, n - 1) for n in grid.size))).reshape(3, -1)
    here, there = (
        np.reshape(g.direction, (3, 3)) * g.spacing @ corners + np.reshape(g.origin, (3, 1)) for g in (grid, reference)
    )
    return float(np.linalg.norm(here - there, axis=0).max())
