"""Predict NIfTI images with the ONNX networks in this folder; needs numpy and onnxruntime alone.

    python run_model.py -i IMAGES -o OUT

Export copies this file next to the networks, so it is one file and imports nothing of the package that wrote it. It
reproduces nnU-Net's default preprocessing (crop, normalise, resample), sliding window and export of labels. Arrays are
in the order (z, y, x), as nnU-Net's readers give them.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import itertools
import json
import math
import os
import re
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SETTINGS_FILE = "settings.json"
FORMAT = 1  # of the settings
HEADER_BYTES = 348
# Codes of the NIfTI-1 standard, https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
NUMBERS = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # metres and micrometres; others are taken for mm, as nnU-Net's readers do
GRID_TOLERANCE = 0.05  # voxels by which a voxel of two channels may lie apart, as in ``predict``
SPLINE_PADDING = 12  # voxels, as in SciPy's zoom


class ModelError(Exception):
    """What a user can correct, as one sentence or two."""


@dataclass(frozen=True)
class Image:
    """A volume of a NIfTI file: (z, y, x), the size of its voxels in mm in this order, and its header."""

    values: np.ndarray
    spacing: tuple[float, ...]
    header: bytes


@dataclass(frozen=True)
class Crop:
    """Where a preprocessed image was in the file's volume, after its axes were put in the model's order."""

    complete: tuple[int, ...]
    box: tuple[slice, ...]
    spacing: tuple[float, ...]


def read_nifti(path: Path) -> Image:
    """Read a NIfTI-1 file of one volume.

    Raises:
        ModelError: it is not one, is truncated, or contains NaN or infinity.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.name.lower().endswith(".gz") else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    order = next((one for one in "<>" if content[:4] == struct.pack(f"{one}i", HEADER_BYTES)), None)
    if order is None or content[344:348] != b"n+1\0":
        raise ModelError(f"{path} is not a NIfTI-1 file of header and image together")
    rank, *sizes = struct.unpack(f"{order}8h", content[40:56])
    (code,) = struct.unpack(f"{order}h", content[70:72])
    pixdim = struct.unpack(f"{order}8f", content[76:108])
    offset, slope, intercept = struct.unpack(f"{order}3f", content[108:120])
    if not 3 <= rank <= 7 or any(size != 1 for size in sizes[3:rank]) or min(sizes[:3]) < 1 or code not in NUMBERS:
        raise ModelError(f"{path} must contain one volume of real numbers; it has sizes {sizes[:rank]}, type {code}")
    if not HEADER_BYTES <= offset <= len(content):
        raise ModelError(f"{path} is damaged: its voxels begin at byte {offset:g} of {len(content)}")
    count = math.prod(sizes[:3])
    kind = np.dtype(f"{order}{NUMBERS[code]}")
    if len(content) < int(offset) + count * kind.itemsize:
        raise ModelError(f"{path} is truncated: its header promises more voxels than it has")
    values = np.frombuffer(content, kind, count, int(offset)).reshape(sizes[2::-1]).astype(np.float32)
    if math.isfinite(slope) and slope != 0 and (slope, intercept) != (1, 0):
        values = values * np.float32(slope) + np.float32(intercept)
    if not np.isfinite(values).all():
        raise ModelError(f"{path} contains NaN or infinity")
    unit = MM_PER_UNIT.get(content[123] & 7, 1.0)
    spacing = tuple(abs(pixdim[axis]) * unit for axis in (3, 2, 1))
    if not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise ModelError(f"{path} has voxels of {spacing} mm: correct its header")
    return Image(values, spacing, content[:HEADER_BYTES])


def byte_order(header: bytes) -> str:
    """That of a NIfTI header, for ``struct`` and NumPy."""
    return "<" if header[:4] == struct.pack("<i", HEADER_BYTES) else ">"


def write_nifti(path: Path, labels: np.ndarray, header: bytes) -> None:
    """Write labels, (z, y, x), uint8 or uint16, on the grid that a header describes; the file appears complete."""
    order = byte_order(header)
    new = bytearray(header)
    new[40:56] = struct.pack(f"{order}8h", 3, *labels.shape[::-1], 1, 1, 1, 1)
    new[70:74] = struct.pack(f"{order}2h", 2 if labels.dtype == np.uint8 else 512, 8 * labels.itemsize)
    new[108:120] = struct.pack(f"{order}3f", HEADER_BYTES + 4, 1, 0)  # no extensions, no scaling
    new[124:132] = bytes(8)  # the range of the image's grey values
    voxels = labels.astype(np.dtype(f"{order}u{labels.itemsize}")).tobytes()
    content = bytes(new) + bytes(4) + voxels
    draft = path.with_name(f".{path.name}.partial")
    draft.write_bytes(gzip.compress(content, mtime=0) if path.name.endswith(".gz") else content)
    os.replace(draft, path)


def find_cases(folder: Path, settings: Mapping[str, Any]) -> dict[str, list[Path | None]]:
    """The files of each case in the order of the channels; None for an absent one.

    Raises:
        ModelError: there are none, some lack channels that the model needs, or two files are the same channel.
    """
    ending, channels = settings["file_ending"], settings["channels"]
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(ending)}", re.IGNORECASE)
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = None if path.name.startswith(".") else pattern.fullmatch(path.name)  # macOS puts ._NAME next to NAME
        if match is None:
            continue
        other = found.setdefault(match[1], {}).setdefault(int(match[2]), path)
        if other != path:  # endings in upper and in lower case
            raise ModelError(f"{folder}: {other.name} and {path.name} are the same channel of {match[1]}")
    if not found:
        raise ModelError(f"{folder} has no images CASE_0000{ending}. Name the folder of the images with -i")
    for case, files in found.items():
        for number in sorted(files.keys() - set(range(len(channels)))):
            raise ModelError(f"{files[number]}: the model has no channel {number}, only {', '.join(channels)}")
        lacking = [name for number, name in enumerate(channels) if number not in files]
        if lacking and not settings["takes_absent"]:
            raise ModelError(f"{folder}: {case} lacks {', '.join(lacking)}, and the model needs all channels")
    return {case: [files.get(number) for number in range(len(channels))] for case, files in sorted(found.items())}


def read_case(files: Sequence[Path | None]) -> tuple[np.ndarray, Image]:
    """The channels of a case, (channels, z, y, x), of which absent ones are 0; and the first of its images.

    Raises:
        ModelError: a file cannot be used, or the channels are on different grids.
    """
    images = {file: read_nifti(file) for file in files if file is not None}
    (reference, first), *others = images.items()
    for file, image in others:
        if (difference := grid_difference(image, first)) is not None:
            raise ModelError(f"{file.name}: {difference} of {reference.name}. Resample it to that grid")
    return np.stack([np.zeros_like(first.values) if one is None else images[one].values for one in files]), first


def grid_difference(image: Image, reference: Image) -> str | None:
    """How the grid of an image differs from that of another; None where ``predict`` takes both for one."""
    if image.values.shape != reference.values.shape:
        return f"shape {image.values.shape} differs from {reference.values.shape}"
    if not np.allclose(image.spacing, reference.spacing):  # nnU-Net's own limit
        return f"voxel size {image.spacing} mm differs from {reference.spacing} mm"
    own, wanted = affine_of(image.header), affine_of(reference.header)
    # The corners, (4, 8), move most; along an axis of one voxel, its neighbour counts.
    corners = np.array([*itertools.product(*((0, max(size - 1, 1)) for size in image.values.shape[::-1]), (1,))]).T
    if np.isfinite([own, wanted]).all():
        apart = np.linalg.norm(np.linalg.pinv(wanted[:, :3]) @ (own - wanted) @ corners, axis=0).max()
    else:
        apart = math.inf
    return None if apart <= GRID_TOLERANCE else f"its voxels lie up to {apart:.3g} voxels away from those"


def affine_of(header: bytes) -> np.ndarray:
    """Where voxels lie, (3, 4): from indices (x, y, z, 1) to mm, in the unit of the header.

    Of the two forms in a header, ITK takes the sform if it is the only one or about the scanner, else the qform.
    """
    order = byte_order(header)
    pixdim = struct.unpack(f"{order}8f", header[76:108])
    qform, sform, *numbers = struct.unpack(f"{order}2h18f", header[252:328])
    (b, c, d), offset, rows = numbers[:3], numbers[3:6], numbers[6:]
    if sform > 0 and (sform == 1 or qform <= 0):
        return np.reshape(rows, (3, 4))
    if qform <= 0:
        return np.diag((*pixdim[1:4], 0))[:3]
    a = math.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    steps = np.abs(pixdim[1:4]) * (1, 1, -1 if pixdim[0] < 0 else 1)
    return np.column_stack([rotation * steps, offset])


def preprocess(image: np.ndarray, spacing: Sequence[float], settings: Mapping[str, Any]) -> tuple[np.ndarray, Crop]:
    """Crop, normalise and resample an image, (channels, z, y, x), as the network expects it.

    Raises:
        ModelError: it is 0 everywhere.
    """
    absent = [number for number, channel in enumerate(image) if settings["takes_absent"] and not channel.any()]
    order = settings["transpose_forward"]
    image, spacing = image.transpose(0, *(axis + 1 for axis in order)), tuple(spacing[axis] for axis in order)
    nonzero: np.ndarray = np.any(image, axis=0)
    if not nonzero.any():
        raise ModelError("the image is 0 everywhere")
    box = tuple(
        slice(int(found[0]), int(found[-1]) + 1)
        for found in (
            np.flatnonzero(nonzero.any(tuple(other for other in range(3) if other != axis))) for axis in range(3)
        )
    )
    crop = Crop(nonzero.shape, box, spacing)
    inside = fill_holes(nonzero)[box] if any(one["mask"] for one in settings["normalization"]) else nonzero[box]
    cropped = image[:, box[0], box[1], box[2]].astype(np.float32)  # a copy
    for channel, scheme in zip(cropped, settings["normalization"], strict=True):
        normalize(channel, inside, scheme)
    target = target_spacing(spacing, settings)
    shape = [round(mm / to * size) for mm, to, size in zip(spacing, target, cropped.shape[1:], strict=True)]
    maps = axis_maps(cropped.shape[1:], shape, spacing, target, settings["resample_image"])
    resampled = np.stack([apply_maps(channel, maps) for channel in cropped])
    if absent:
        resampled *= len(resampled) / (len(resampled) - len(absent))
        resampled[absent] = 0
    return resampled, crop


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """A mask with its holes, which are what the border of the volume is not connected to across faces of voxels."""
    free = ~mask
    outside = np.zeros_like(mask)
    for axis in range(mask.ndim):
        for side in (0, -1):
            index = (slice(None),) * axis + (side,)
            outside[index] = free[index]
    reached = -1
    while (count := int(outside.sum())) > reached:  # it spreads along one axis after another until nothing is new
        reached = count
        for axis in range(mask.ndim):
            moved, allowed = np.moveaxis(outside, axis, 0), np.moveaxis(free, axis, 0)
            for rows in (range(1, len(moved)), range(len(moved) - 2, -1, -1)):
                for row in rows:
                    moved[row] |= allowed[row] & moved[row - 1 if rows.step > 0 else row + 1]
    return ~outside


def normalize(channel: np.ndarray, inside: np.ndarray, scheme: Mapping[str, Any]) -> None:
    """Normalise a channel in place; ``inside`` is what is not outside of the patient."""
    name, found = scheme["scheme"], scheme["properties"]
    if name == "ZScoreNormalization":
        part = inside if scheme["mask"] else np.ones_like(inside)
        values = channel[part]
        channel[part] = (values - values.mean()) / max(values.std(), 1e-8)
    elif name == "CTNormalization":
        np.clip(channel, found["percentile_00_5"], found["percentile_99_5"], out=channel)
        channel -= found["mean"]
        channel /= max(found["std"], 1e-8)
    elif name == "RescaleTo01Normalization":
        channel -= channel.min()
        channel /= max(channel.max(), 1e-8)
    elif name == "RGBTo01Normalization":
        channel /= 255
    elif name != "NoNormalization":
        raise ModelError(f"{SETTINGS_FILE}: unknown normalisation {name}")


def target_spacing(spacing: Sequence[float], settings: Mapping[str, Any]) -> list[float]:
    """The size of the network's voxels in mm; in 2D, slices stay as they are."""
    own = settings["spacing"]
    return [*spacing[: len(spacing) - len(own)], *own]


def axis_maps(
    source: Sequence[int],
    target: Sequence[int],
    source_mm: Sequence[float],
    target_mm: Sequence[float],
    options: Mapping[str, Any],
) -> list[tuple[int, np.ndarray | None]]:
    """The order of the splines along each axis, and the matrix (target, source) that resamples it; None: the identity.

    Where slices are thick, nnU-Net resamples within slices and takes the nearest slice (``determine_do_sep_z_and_axis``
    of nnU-Net 2.8). Splines are products of one map for each axis.
    """
    thick = thick_axis(source_mm, target_mm, options)
    orders = [options["order_z"] if axis == thick else options["order"] for axis in range(len(source))]
    return [
        (order, None if before == after else spline_matrix(before, after, order))
        for order, before, after in zip(orders, source, target, strict=True)
    ]


def thick_axis(source_mm: Sequence[float], target_mm: Sequence[float], options: Mapping[str, Any]) -> int | None:
    """The axis that is resampled by itself, if one is."""
    forced, limit = options["force_separate_z"], options["separate_z_anisotropy_threshold"]
    decisive = next((one for one in (source_mm, target_mm) if max(one) / min(one) > limit), None)
    if forced is not None:
        decisive = source_mm if forced else None
    thick = [] if decisive is None else [axis for axis, mm in enumerate(decisive) if mm == max(decisive)]
    return thick[0] if len(thick) == 1 else None


def spline_matrix(source: int, target: int, order: int) -> np.ndarray:
    """The matrix of interpolation by splines of order 0, 1 or 3 between the centres of voxels, constant beyond."""
    position = (np.arange(target) + 0.5) * (source / target) - 0.5
    if order < 3:
        position = np.clip(np.floor(position + 0.5) if order == 0 else position, 0, source - 1)
        return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(source)))
    # Cubic: coefficients of the B-splines first. They reproduce the voxels, of which some more are put at each end.
    size = source + 2 * SPLINE_PADDING
    voxels_of = (np.eye(size, k=-1) + 4 * np.eye(size) + np.eye(size, k=1)) / 6
    voxels_of[0, 1] = voxels_of[-1, -2] = 2 / 6  # mirrored at the ends
    padded = np.eye(source)[np.clip(np.arange(size) - SPLINE_PADDING, 0, source - 1)]
    distance = np.abs(position[:, None] + SPLINE_PADDING - np.arange(size))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6
    spline = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return spline @ np.linalg.solve(voxels_of, padded)


def apply_maps(volume: np.ndarray, maps: Sequence[tuple[int, np.ndarray | None]]) -> np.ndarray:
    """Resample a volume and keep its type; cubic splines stay in the range of what they interpolate, all or a slice."""
    cubic = tuple(axis for axis, (order, _) in enumerate(maps) if order == 3)
    lowest, highest = volume.min(cubic, keepdims=True), volume.max(cubic, keepdims=True)
    result = volume.astype(np.float64)
    changed = any(maps[axis][1] is not None for axis in cubic)
    for axis, (order, matrix) in sorted(enumerate(maps), key=lambda one: one[1][0] != 3):
        if order != 3 and changed:
            result, changed = np.clip(result, lowest, highest), False
        if matrix is not None:
            result = np.moveaxis(np.tensordot(matrix, result, (1, axis)), 0, axis)
    return (np.clip(result, lowest, highest) if changed else result).astype(volume.dtype)


def tiles(shape: Sequence[int], patch: Sequence[int], step: float) -> Iterator[tuple[slice, ...]]:
    """The tiles of the sliding window (``compute_steps_for_sliding_window`` of nnU-Net 2.8)."""
    starts = []
    for size, length in zip(shape, patch, strict=True):
        count = math.ceil((size - length) / (length * step)) + 1
        between = (size - length) / max(count - 1, 1)
        starts.append([int(np.round(between * number)) for number in range(count)])
    for corner in itertools.product(*starts):
        yield tuple(slice(start, start + length) for start, length in zip(corner, patch, strict=True))


def tile_weights(patch: Sequence[int]) -> np.ndarray:
    """A Gaussian of an eighth of the patch around its centre, 10 there, in half precision as in nnU-Net."""
    weights: np.ndarray = np.ones(())
    for size in patch:
        distance, sigma = np.abs(np.arange(size) - size // 2), size / 8
        along = np.where(distance <= int(4 * sigma + 0.5), np.exp(-0.5 * (distance / sigma) ** 2), 0)
        weights = np.multiply.outer(weights, along)
    rounded = (10 * weights).astype(np.float16)
    rounded[rounded == 0] = rounded[rounded > 0].min()
    return rounded.astype(np.float32)


def sum_of_tiles(networks: Sequence[Any], data: np.ndarray, settings: Mapping[str, Any], mirror: bool) -> np.ndarray:
    """The logits, (classes, z, y, x), of a preprocessed image, averaged over networks, mirrored and overlapping tiles.

    One network's sums have half precision, as in nnU-Net: it is coarse in corners, where all weights are near 0, and so
    decides labels there. The result always has half precision.

    Raises:
        ModelError: the output of a network contains NaN or infinity.
    """
    patch = settings["patch_size"]
    in_2d = len(patch) < data.ndim - 1
    padded, box = pad(data, [1, *patch] if in_2d else patch)
    axes = [axis + 2 for axis in settings["mirroring_axes"]] if mirror else []
    flips = [chosen for count in range(len(axes) + 1) for chosen in itertools.combinations(axes, count)]
    weights = tile_weights(patch)
    kind = np.float16 if len(networks) == 1 else np.float32
    total: np.ndarray = np.zeros(())
    norm: np.ndarray = np.zeros(padded.shape[1:], kind)
    planes = [(slice(z, z + 1),) for z in range(padded.shape[1])] if in_2d else [()]
    window = list(tiles(padded.shape[-len(patch) :], patch, settings["tile_step_size"]))
    for z, y, x in ((*plane, *position) for plane in planes for position in window):
        tile = padded[:, z, y, x]
        logits = mean_output(networks, (tile[:, 0] if in_2d else tile)[None], flips)
        if total.ndim == 0:
            total = np.zeros((len(logits), *padded.shape[1:]), kind)
        total[:, z, y, x] += (logits * weights)[:, None] if in_2d else logits * weights
        norm[z, y, x] += weights
    total /= norm
    if not np.isfinite(total).all():
        raise ModelError("the output of the network contains NaN or infinity: check the image's intensities")
    return total[:, box[0], box[1], box[2]].astype(np.float16)


def pad(data: np.ndarray, least: Sequence[int]) -> tuple[np.ndarray, tuple[slice, ...]]:
    """An image, (channels, z, y, x), with zeros around it to at least these sizes; and where it is in the result."""
    lacking = [max(0, length - size) for length, size in zip(least, data.shape[1:], strict=True)]
    before = [one // 2 for one in lacking]
    padded = np.pad(data, [(0, 0), *((one, all_ - one) for one, all_ in zip(before, lacking, strict=True))])
    return padded, tuple(slice(one, one + size) for one, size in zip(before, data.shape[1:], strict=True))


def mean_output(networks: Sequence[Any], images: np.ndarray, flips: Sequence[tuple[int, ...]]) -> np.ndarray:
    """The mean output, (classes, *spatial), for an image, (1, channels, *spatial), and its mirrored forms."""
    outputs = [
        np.flip(network.run(None, {"image": np.ascontiguousarray(np.flip(images, axes))})[0], axes)
        for network in networks
        for axes in flips
    ]
    mean = np.asarray(np.mean(np.stack(outputs), axis=0, dtype=np.float32))
    return mean[0]


def labels_of(logits: np.ndarray, crop: Crop, settings: Mapping[str, Any]) -> np.ndarray:
    """Labels on the grid of the file, (z, y, x), from logits on the network's grid."""
    size = [part.stop - part.start for part in crop.box]
    target = target_spacing(crop.spacing, settings)
    maps = axis_maps(logits.shape[1:], size, target, crop.spacing, settings["resample_logits"])
    classes = (apply_maps(one, maps) for one in logits)
    values = np.array(settings["label_values"], np.uint16 if settings["wide_labels"] else np.uint8)
    if settings["has_regions"]:
        cropped = np.zeros(size, values.dtype)
        for value, one in zip(values[1:], classes, strict=True):
            cropped[one > 0] = value
    else:
        cropped = values[np.argmax(np.stack(list(classes)), axis=0)]
    complete = np.zeros(crop.complete, values.dtype)
    complete[crop.box] = cropped
    return complete.transpose(settings["transpose_backward"])


def predict_case(
    networks: Sequence[Any], files: Sequence[Path | None], settings: Mapping[str, Any], mirror: bool
) -> Image:
    """The labels of a case, on the grid of its first image.

    Raises:
        ModelError: an image cannot be used.
    """
    image, first = read_case(files)
    data, crop = preprocess(image, first.spacing, settings)
    return Image(labels_of(sum_of_tiles(networks, data, settings, mirror), crop, settings), first.spacing, first.header)


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the settings next to this file.

    Raises:
        ModelError: they cannot be read, or are of another version.
    """
    try:
        settings: dict[str, Any] = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / SETTINGS_FILE} cannot be read ({error}). Copy the exported folder again"
        ) from error
    if settings.get("format") != FORMAT:
        raise ModelError(f"{folder / SETTINGS_FILE} is in format {settings.get('format')}, this script reads {FORMAT}")
    return settings


def open_networks(folder: Path, settings: Mapping[str, Any], folds: Sequence[str] | None) -> list[Any]:
    """Open the networks of some folds, or of all.

    Raises:
        ModelError: a fold does not exist, or its file is not the one that was exported.
    """
    names = list(settings["networks"]) if folds is None else [f"fold_{fold}.onnx" for fold in folds]
    networks = []
    for name in names:
        if name not in settings["networks"]:
            raise ModelError(f"there is no {name}; this folder has {', '.join(settings['networks'])}")
        file = folder / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != settings["networks"][name]:
            raise ModelError(f"{file} is missing or not the file that was exported. Copy the exported folder again")
        networks.append(open_network(file))
    return networks


def open_network(file: Path) -> Any:
    """A session of onnxruntime, on a GPU if it has one."""
    import onnxruntime  # here, so that the functions above can be used and tested without it

    available = onnxruntime.get_available_providers()
    wanted = [one for one in ("CUDAExecutionProvider", "CPUExecutionProvider") if one in available]
    return onnxruntime.InferenceSession(str(file), providers=wanted)


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict the cases of a folder; returns the exit status."""
    parser = argparse.ArgumentParser(description="Predict NIfTI images with the ONNX networks in this folder.")
    parser.add_argument("-i", dest="images", type=Path, required=True, help="folder of images CASE_0000.nii.gz")
    parser.add_argument("-o", dest="out", type=Path, required=True, help="output folder; existing cases are kept")
    parser.add_argument("--folds", nargs="+", help="networks to average (default: all)")
    parser.add_argument("--no-mirroring", dest="mirror", action="store_false", help="faster, less accurate")
    parser.add_argument("--model", type=Path, default=Path(__file__).parent, help="folder of the networks")
    options = parser.parse_args(arguments)
    failed = 0
    try:
        settings = read_settings(options.model)
        cases = find_cases(options.images, settings)
        networks = open_networks(options.model, settings, options.folds)
        options.out.mkdir(parents=True, exist_ok=True)
        for case, files in cases.items():
            target = options.out / f"{case}{settings['file_ending']}"
            if target.exists():
                print(f"{case}: exists in {options.out}, kept")
                continue
            try:
                labels = predict_case(networks, files, settings, options.mirror)
            except ModelError as error:  # concerns this case alone
                print(f"failed: {case}: {error}", file=sys.stderr)
                failed += 1
                continue
            write_nifti(target, labels.values, labels.header)
            print(f"{case}: {target}")
    except (ModelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
