"""Read every file of a case once, and report all problems that prevent its conversion and all facts about it.

Constant images and images with NaN are problems unless their release is known to contain them and declares how to
treat them. Most come from a failed export or download. A constant channel teaches nothing, and zeros in place of NaN
would hide the damage, while SimpleITK and nnU-Net would train on both without an error. ``--skip-invalid`` converts
the set without such cases and lists them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from factorizer_nnunet.dataset_conversion.cases import Problem, SourceCase
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.spec import Channel, Release
from factorizer_nnunet.imaging.checks import (
    compression_problem,
    constant_problem,
    grid_problem,
    negative_labels_problem,
    not_finite_problem,
)
from factorizer_nnunet.imaging.grid import Grid, geometry_difference, largest_offset_mm
from factorizer_nnunet.imaging.labels import count_labels, integer_labels, remapped
from factorizer_nnunet.imaging.planes import (
    AXIAL,
    axis_across,
    fullest_slice,
    intensity_range,
    slice_labels,
    slice_picture,
    slice_position,
)
from factorizer_nnunet.imaging.volume import Volume, read_volume
from factorizer_nnunet.imaging.window import window_of

_ROUNDING_MM = 1e-4  # smaller differences come from the 32-bit numbers in headers


@dataclass(frozen=True)
class ImageFacts:
    """Facts about one channel of a case on its source grid, and how its file is written for nnU-Net.

    ``treatment`` is "copy" (byte for byte), "compress" (plain NIfTI, whatever its name), "split" (one image of a
    series), "rewrite" (repaired header, dropped axes or zeroed voxels), "resample" (to the case's grid), "move" (the
    same voxels on the case's grid), or "absent" (zeros on the case's grid, and no file for an unlabelled case).
    """

    grid: Grid
    low: float  # 0.5 percentile of a sample of the non-zero voxels
    high: float  # 99.5 percentile
    treatment: str


@dataclass(frozen=True)
class LabelFacts:
    """Number of voxels of each label value of the release except 0, after remapping."""

    counts: Mapping[int, int]
    grid: Grid


@dataclass(frozen=True)
class Thumbnail:
    """Picture of one axial slice, as `factorizer_nnunet.imaging.planes` shows it."""

    image: np.ndarray  # (rows, columns), uint8: 0 and 255 at the ends of the window
    label: np.ndarray  # (rows, columns), uint8: the release's values up to 255; 0 everywhere without a label
    channel: str = ""  # its name
    window: str = ""  # such as "window 12 to 830"
    position: str = ""  # such as "S 34.2 mm"


@dataclass(frozen=True)
class Examined:
    """A case and the results of reading its files; ``images`` is empty if one of them is not usable."""

    case: SourceCase
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    images: tuple[ImageFacts, ...]  # one per channel
    label: LabelFacts | None
    thumbnail: Thumbnail | None


def grid_channel(channels: Sequence[Channel], absent: Collection[int] = ()) -> int:
    """Index of the chosen channel that defines the case's grid: the first that exists and is never on its own grid."""
    chosen = (number for number, channel in enumerate(channels) if not channel.own_grid and number not in absent)
    return next(chosen, 0)


def display_channel(release: Release, channels: Sequence[Channel], absent: Collection[int] = ()) -> int:
    """Index of the channel to show: that which the release names, if it is chosen, exists and has the case's grid."""
    usable = (n for n, channel in enumerate(channels) if not channel.own_grid and n not in absent)
    return next((n for n in usable if channels[n].name == release.display), grid_channel(channels, absent))


def examine(release: Release, channels: Sequence[Channel], options: Options, case: SourceCase) -> Examined:
    """Read each file of ``case`` once and completely, so that a truncated file is found now and not in training.

    Bad files become problems and never raise. Runs in worker processes; at most two images are in memory at a time.
    ``channels`` are those to convert, one per image of the case.
    """
    return _Examination(release, channels, case, options.ignore_geometry).run(options.remap_of(case.name))


@dataclass
class _Examination:
    """Collects problems and notes while the files of one case are read."""

    release: Release
    channels: Sequence[Channel]
    case: SourceCase
    ignore_geometry: bool
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    shown: tuple[int, np.ndarray] | None = None  # the axial slice with the most label, and its label values
    labelled: np.ndarray | None = None  # (x, y, z): where the label is not 0

    def run(self, remap: Mapping[int, int]) -> Examined:
        case, channels = self.case, self.channels
        # The label comes first: it decides which slice of the image is shown.
        label = None
        if case.label is not None:
            with self._reported(case.label):
                label = self._examine_label(case.label, remap)
        reference = grid_channel(channels, case.absent)
        pictured = display_channel(self.release, channels, case.absent)
        images: list[ImageFacts | None] = [None] * len(channels)
        thumbnail = None
        for path in case.files:
            volume = None
            with self._reported(path):
                volume = self._read(path)
            for number, channel in enumerate(channels):
                if volume is None or case.images[number] != path:
                    continue
                with self._reported(path):
                    part = volume.part(channel.volume)
                    images[number] = self._examine_image(path, part, channel)
                    if number == pictured:
                        thumbnail = self._thumbnail(part, channel, label)
        # If the file that defines the grid is unreadable, the others are still compared: all problems come at once.
        readable = (number for number, channel in enumerate(channels) if images[number] and not channel.own_grid)
        self._compare_grids(images, next(readable, reference), label)
        if (whole := images[reference]) is not None:
            for number in case.absent:
                images[number] = ImageFacts(whole.grid, 0, 0, "absent")
        facts = tuple(image for image in images if image is not None)
        return Examined(
            case,
            tuple(dict.fromkeys(self.problems)),  # a problem of a series occurs for each of its channels
            tuple(dict.fromkeys(self.notes)),
            facts if len(facts) == len(images) else (),
            label,
            None if self.problems else thumbnail,
        )

    @contextlib.contextmanager
    def _reported(self, path: Path) -> Iterator[None]:
        """Turn the error of an unusable file into a problem."""
        try:
            yield
        except (OSError, ValueError) as error:
            self._problem(path, str(error))

    def _read(self, path: Path) -> Volume:
        volume = read_volume(path)
        for note in (*volume.repairs, compression_problem(volume, path)):
            if note:
                self._note(path, note)
        return volume

    def _examine_image(self, path: Path, volume: Volume, channel: Channel) -> ImageFacts:
        prefix = "" if channel.volume is None else f"{channel.name} "
        values = volume.values
        not_finite, zeroed = not_finite_problem(values), self.release.non_finite_to_zero
        if not_finite and zeroed:
            self._note(path, f"{prefix}{not_finite}; they are set to 0")
        elif not_finite:
            self._problem(path, f"{prefix}{not_finite}")
        finite = np.nan_to_num(values, nan=0, posinf=0, neginf=0) if not_finite else values
        constant = constant_problem(finite)
        if constant and (not not_finite or zeroed):
            (self._note if self.release.constant_allowed else self._problem)(path, f"{prefix}{constant}")
        if channel.volume is not None:
            treatment = "split"
        elif volume.repairs or not_finite:
            treatment = "rewrite"
        else:
            treatment = "copy" if volume.gzipped else "compress"
        return ImageFacts(volume.grid, *intensity_range(finite), treatment)

    def _examine_label(self, path: Path, remap: Mapping[int, int]) -> LabelFacts:
        volume = self._read(path).part(None)
        labels = integer_labels(volume.values)
        raw_counts = count_labels(labels)
        if negative := negative_labels_problem(raw_counts):
            raise ValueError(negative)
        counts: dict[int, int] = {}
        for value, number in raw_counts.items():
            counts[remap.get(value, value)] = counts.get(remap.get(value, value), 0) + number
        counts.pop(0, None)
        if not counts:
            self._note(path, "empty label: every voxel is background")
        number = fullest_slice(labels != 0, AXIAL, volume.grid)
        picture = np.minimum(remapped(slice_labels(labels, AXIAL, volume.grid, number), remap), 255)
        self.shown, self.labelled = (number, picture.astype(np.uint8)), labels != 0
        return LabelFacts(dict(sorted(counts.items())), volume.grid)

    def _thumbnail(self, volume: Volume, channel: Channel, label: LabelFacts | None) -> Thumbnail:
        grid, picture, labelled = volume.grid, None, None
        number = grid.size[axis_across(AXIAL, grid)] // 2
        if self.shown is not None and label is not None and geometry_difference(label.grid, grid) is None:
            (number, picture), labelled = self.shown, self.labelled
        window = window_of(volume.values, channel.written_name, labelled)
        image = slice_picture(volume.values, AXIAL, grid, number, window.ends)
        picture = np.zeros(image.shape, np.uint8) if picture is None else picture
        return Thumbnail(image, picture, channel.name, f"window {window.text}", slice_position(AXIAL, grid, number))

    def _compare_grids(self, images: list[ImageFacts | None], first: int, label: LabelFacts | None) -> None:
        """Add a problem for every file that is not on the grid of channel `first`, or mark it for resampling.

        Differences within the tolerance give one note, about the file that differs most: often all cases have them.
        """
        reference, reference_path = images[first], self.case.images[first]
        if reference is None or reference_path is None:
            return
        grid, name = reference.grid, reference_path.name
        files: list[tuple[Path | None, ImageFacts | LabelFacts | None]]
        files = list(zip(self.case.images, images, strict=True))
        if self.case.label is not None:
            files.append((self.case.label, label))
        offsets_mm: dict[Path, float] = {}
        for number, (path, file) in enumerate(files):
            if file is None or path is None:
                continue
            problem = grid_problem(file.grid, grid, name)
            if problem is None:
                offsets_mm[path] = largest_offset_mm(file.grid, grid)
            elif isinstance(file, ImageFacts) and self.channels[number].own_grid:
                images[number] = replace(file, treatment="resample")
            elif grid_problem(file.grid, grid, name, self.ignore_geometry) is not None:
                self._problem(path, problem)
            else:
                self._note(path, f"{geometry_difference(file.grid, grid)} of {name}, whose grid it is written with")
                if isinstance(file, ImageFacts):
                    images[number] = replace(file, treatment="move")
        if not offsets_mm:  # a position that is not a number differs even from itself
            return
        path = max(offsets_mm, key=offsets_mm.__getitem__)
        if offsets_mm[path] > _ROUNDING_MM:
            self._note(path, f"is offset from {name} by up to {offsets_mm[path]:.2g} mm, which is within the tolerance")

    def _problem(self, path: Path, text: str) -> None:
        self.problems.append(Problem(self.case.name, path, text))

    def _note(self, path: Path, text: str) -> None:
        self.notes.append(Problem(self.case.name, path, text))
