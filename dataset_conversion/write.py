"""Write examined cases in nnU-Net's raw format (nnU-Net, documentation/dataset_format.md); sources are only read."""

from __future__ import annotations

import contextlib
import gzip
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813

from factorizer_nnunet.dataset_conversion import registration as rigid
from factorizer_nnunet.dataset_conversion.cases import FILE_ENDING, SourceCase
from factorizer_nnunet.dataset_conversion.check import Examined, grid_channel
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.spec import Channel, LabelScheme, Release
from factorizer_nnunet.imaging.checks import count_not_finite
from factorizer_nnunet.imaging.grid import grid_of
from factorizer_nnunet.imaging.labels import integer_labels, remapped
from factorizer_nnunet.imaging.planes import AXIAL, fullest_slice, intensity_range, slice_picture, slice_position
from factorizer_nnunet.imaging.volume import COMPRESSION, Volume, nifti_bytes, read_header, read_volume
from factorizer_nnunet.imaging.window import window_of
from factorizer_nnunet.nnunet.dataset_json import (
    ABSENT_KEY,
    CASES_KEY,
    CHANNELS_KEY,
    DISPLAY_KEY,
    ENDING_KEY,
    LABELS_KEY,
    REGIONS_ORDER_KEY,
)


@dataclass(frozen=True)
class Registered:
    """How one channel was aligned with the case's grid, and the same axial slice of three images.

    Pictures are (rows, columns), uint8, at most 160 pixels per side.
    """

    case: str
    channel: str
    registration: rigid.Registration
    reference: np.ndarray  # the channel that defines the grid
    before: np.ndarray  # this channel aligned by its header
    after: np.ndarray  # this channel as written
    position: str = ""  # of the slice, such as "S 34.2 mm"
    reference_shown: str = ""  # channel and window of the first picture
    shown: str = ""  # of the others


def write_case(
    release: Release,
    channels: Sequence[Channel],
    scheme: LabelScheme,
    folder: Path,
    options: Options,
    examined: Examined,
) -> list[Registered]:
    """Write one case below ``folder``: labelled cases to imagesTr and labelsTr, others to imagesTs.

    The case has no problems and was examined with the same channels. Returns how those on their own grids were aligned.

    Raises:
        OSError: a file cannot be written, for example because the disk is full, or a source can no longer be read.
        ValueError: the label contains a value that is not in ``scheme``.
    """
    case = examined.case
    read = lru_cache(maxsize=1)(read_volume)  # a series is read once for all of its channels
    fixed = grid_channel(channels, case.absent)
    grid_file = case.images[fixed]
    assert grid_file is not None  # `grid_channel` chooses among those that exist
    grid_header = read_header(grid_file)
    registered = []
    for number, (channel, path, facts) in enumerate(zip(channels, case.images, examined.images, strict=True)):
        target = folder / case.image_file(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path is None:
            if case.label is not None:  # nnU-Net trains on cases with all files only
                _write_bytes(target, nifti_bytes(np.zeros(facts.grid.size, np.uint8), grid_header))
        elif facts.treatment == "copy":
            _copy(path, target, options.link)
        elif facts.treatment == "compress":
            _write_bytes(target, gzip.compress(path.read_bytes(), COMPRESSION, mtime=0))
        elif facts.treatment == "resample":
            moving, reference = read(path).part(channel.volume), read_volume(grid_file).part(channels[fixed].volume)
            names = (channels[fixed].name, channel.name)
            registered.append(_write_resampled(case.name, names, moving, reference, target, options.register))
        else:
            part = read(path).part(channel.volume)
            stored = _finite(part) if release.non_finite_to_zero else part.stored
            header = grid_header if facts.treatment == "move" else part.header
            _write_bytes(target, nifti_bytes(stored, header, part.slope, part.intercept))
    if case.label is not None:
        target = folder / case.label_file
        target.parent.mkdir(exist_ok=True)
        volume = read_volume(case.label)
        labels = scheme.labels.apply(remapped(integer_labels(volume.values), options.remap_of(case.name)))
        if _is_unchanged(volume, labels, grid_header):
            _copy(case.label, target, options.link)
        else:
            _write_bytes(target, nifti_bytes(labels, grid_header))
    return registered


def _is_unchanged(label: Volume, mapped: np.ndarray, header: nibabel.Nifti1Header) -> bool:
    """Whether a label's file already contains the mapped voxels, uint8 and unscaled, on exactly the header's grid."""
    plain = label.gzipped and not label.repairs and (label.slope, label.intercept) == (1.0, 0.0)
    same_grid = label.grid == grid_of(header)
    return plain and same_grid and label.stored.dtype == mapped.dtype and np.array_equal(label.stored, mapped)


def dataset_json(
    release: Release, channels: Sequence[Channel], scheme: LabelScheme, name: str, training: Sequence[SourceCase]
) -> dict[str, Any]:
    """Return the content of dataset.json for these training cases; the order of regions matters to nnU-Net."""
    if scheme.regions_class_order is None:
        regions: dict[str, Any] = {region: values[0] for region, values in scheme.regions.items()}
        order = {}
    else:
        regions = {region: list(values) for region, values in scheme.regions.items()}
        order = {REGIONS_ORDER_KEY: list(scheme.regions_class_order)}
    absent = {case.name: list(case.absent) for case in training if case.absent}
    shown = [str(number) for number, channel in enumerate(channels) if channel.name == release.display]
    return {
        CHANNELS_KEY: {str(number): channel.written_name for number, channel in enumerate(channels)},
        **({DISPLAY_KEY: shown[0]} if shown else {}),
        **({ABSENT_KEY: absent} if absent else {}),
        LABELS_KEY: {"background": 0, **regions},
        **order,
        CASES_KEY: len(training),
        ENDING_KEY: FILE_ENDING,
        "name": name,
        "release": release.title,
        "licence": release.licence,
        "reference": release.reference,
        "converted_by": "factorizer_nnunet",
    }


def _copy(source: Path, target: Path, link: bool) -> None:
    with _naming(target):
        if link:
            target.symlink_to(source.resolve())
        else:
            shutil.copyfile(source, target)


def _write_bytes(target: Path, content: bytes) -> None:
    with _naming(target):
        target.write_bytes(content)


@contextlib.contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Add the file's name to errors: Python omits it for a full disk, which shows while writing or closing."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


def _finite(volume: Volume) -> np.ndarray:
    """The stored voxels, with non-finite ones replaced by the stored value that means 0."""
    stored = volume.stored
    if not count_not_finite(volume.values):
        return stored
    return np.where(np.isfinite(volume.values), stored, stored.dtype.type(-volume.intercept / volume.slope))


def _write_resampled(
    case: str, names: tuple[str, str], moving: Volume, reference: Volume, target: Path, register: bool
) -> Registered:
    """Write ``moving`` on the grid of ``reference``; ``names`` are the channels of the grid and of the image."""
    moving_image, fixed_image = _to_sitk(moving), _to_sitk(reference)
    align = rigid.register if register else rigid.by_headers
    transform, registration = align(moving_image, fixed_image)
    after = _from_sitk(rigid.resample(moving_image, fixed_image, transform))
    _write_bytes(target, nifti_bytes(after, reference.header))
    before = after
    if registration.translation_mm or registration.rotation_deg:
        before = _from_sitk(rigid.resample(moving_image, fixed_image, sitk.Euler3DTransform()))
    grid, (fixed, channel) = reference.grid, names
    reference_window, window = window_of(reference.values, fixed), window_of(after, channel)
    head = reference.values > intensity_range(reference.values)[0]
    shown = fullest_slice(head, AXIAL, grid)  # where the head is widest
    return Registered(
        case,
        channel,
        registration,
        slice_picture(reference.values, AXIAL, grid, shown, reference_window.ends),
        slice_picture(before, AXIAL, grid, shown, window.ends),
        slice_picture(after, AXIAL, grid, shown, window.ends),
        slice_position(AXIAL, grid, shown),
        f"{fixed}, window {reference_window.text}",
        f"{channel}, window {window.text}",
    )


def _to_sitk(volume: Volume) -> sitk.Image:
    """The image as float32, with non-finite voxels set to 0."""
    values = np.nan_to_num(volume.values.T.astype(np.float32), nan=0, posinf=0, neginf=0)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(volume.grid.spacing)
    image.SetOrigin(volume.grid.origin)
    image.SetDirection(volume.grid.direction)
    return image


def _from_sitk(image: sitk.Image) -> np.ndarray:
    """Voxels (x, y, z)."""
    return sitk.GetArrayFromImage(image).T
