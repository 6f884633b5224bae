"""Corrupted copies of images: what a model in use meets and was not trained for.

    python -m benchmarks.corruptions -i imagesTs -o CORRUPTED --strengths 1 2 3 --seed 0
    python -m benchmarks.corruptions -i imagesTs -o CORRUPTED --kinds noise blur

Writes CORRUPTED/KIND_STRENGTH/CASE_0000.nii.gz, …, folders that must not exist and appear complete. All kinds but
``spacing`` keep the grid, so labels of the clean images fit; with ``spacing``, the header has a wrong voxel size, and
labels fit voxel by voxel. What is drawn at random depends on the seed, the name of the case and the kind, not on the
strength.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import gaussian_filter, map_coordinates

from factorizer_nnunet.core.atomic_files import atomic_folder
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of, lengths
from factorizer_nnunet.imaging.payload import payload_problem
from factorizer_nnunet.nnunet.image_files import channels_by_case, image_name

VERSION = 2  # of corrupted images: raise it when they change, so that no earlier ones are used
STRENGTHS = (1, 2, 3)
ENDING = ".nii.gz"
_MOST_BACKGROUND = 0.05  # a lowest value that more voxels have is background, and stays as it is
_SAME_SPACING = 0.01  # headers store rounded spacings
_REMOVED = 0.25  # a lowest value that more voxels have was set where something was removed, such as the skull


@dataclass(frozen=True)
class Channels:
    """The channels of a case.

    Attributes:
        arrays: (x, y, z) each, float32, on one grid.
        spacing: of the voxels, mm along x, y and z.
    """

    arrays: tuple[np.ndarray, ...]
    spacing: tuple[float, ...]


Corruption = Callable[[Channels, int, np.random.Generator], Channels]


def noise(channels: Channels, strength: int, rng: np.random.Generator) -> Channels:
    """Gaussian noise of 0.15, 0.4 or 1 standard deviations of the foreground."""
    share = (0.15, 0.4, 1.0)[strength - 1]
    return _changed(channels, lambda values: values + share * values.std() * rng.standard_normal(values.shape))


def blur(channels: Channels, strength: int, rng: np.random.Generator) -> Channels:
    """Gaussian blur of 1, 2 or 4 times the smallest voxel side in mm, in all directions."""
    sigma = (1, 2, 4)[strength - 1] * min(channels.spacing) / np.array(channels.spacing)
    return _acquired(channels, lambda array: gaussian_filter(array, sigma, mode="nearest"))


def bias_field(channels: Channels, strength: int, rng: np.random.Generator) -> Channels:
    """A smooth factor from exp(-s) to exp(s), s = 0.4, 0.8 or 1.6: one polynomial of order 3 for all channels."""
    powers = [power for power in itertools.product(range(4), repeat=3) if 0 < sum(power) <= 3]
    coefficients = rng.standard_normal(len(powers))
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in channels.arrays[0].shape), indexing="ij", sparse=True)
    total = sum(c * x**i * y**j * z**k for c, (i, j, k) in zip(coefficients, powers, strict=True))
    factor = np.exp((0.4, 0.8, 1.6)[strength - 1] * total / max(np.abs(total).max(), 1e-6))
    arrays = tuple((array - array.min()) * factor + array.min() for array in channels.arrays)
    return _float(replace(channels, arrays=arrays))


def contrast(channels: Channels, strength: int, rng: np.random.Generator) -> Channels:
    """Stretched 2, 4 or 8 times around the median and cut off at the old range: both ends are saturated."""
    factor = (2, 4, 8)[strength - 1]

    def stretched(values: np.ndarray) -> np.ndarray:
        low, high = np.percentile(values, (1, 99))
        return np.clip(np.median(values) + factor * (values - np.median(values)), low, high)

    return _changed(channels, stretched)


def gamma(channels: Channels, strength: int, rng: np.random.Generator) -> Channels:
    """A power of the intensities between their lowest and highest: exp(±s), s = 0.5, 1 or 1.5, the sign at random."""
    power = float(np.exp(rng.choice((-1, 1)) * (0.5, 1.0, 1.5)[strength - 1]))

    def curved(values: np.ndarray) -> np.ndarray:
        low, high = np.percentile(values, (0.1, 99.9))
        return low + (high - low) * np.clip((values - low) / max(high - low, 1e-6), 0, 1) ** power

    return _changed(channels, curved)


def missing_slices(channels: Channels, strength: int, rng: np.random.Generator) -> Channels:
    """A tenth, a quarter or half of the slices, next to each other, have the lowest value of their channel."""
    axis, missing = _missing(channels.arrays[0].shape, channels.spacing, strength, rng)
    index = tuple(missing if one == axis else slice(None) for one in range(3))
    arrays = tuple(array.copy() for array in channels.arrays)
    for array in arrays:
        array[index] = array.min()
    return replace(channels, arrays=arrays)


def _missing(
    size: Sequence[int], spacing: Sequence[float], strength: int, rng: np.random.Generator
) -> tuple[int, slice]:
    """The axis of the slices, along which voxels are longest, or z if they are cubes; and the missing ones."""
    axis = 2 if np.allclose(spacing, spacing[0], rtol=_SAME_SPACING) else int(np.argmax(spacing))
    count = max(1, round((0.1, 0.25, 0.5)[strength - 1] * size[axis]))
    first = int(rng.random() * (size[axis] - count + 1))
    return axis, slice(first, first + count)


def half_resolution(channels: Channels, strength: int, rng: np.random.Generator) -> Channels:
    """Voxels 2, 3 or 4 times as large along each axis, interpolated linearly back to the grid."""
    factor = strength + 1

    def coarse(array: np.ndarray) -> np.ndarray:
        smooth = gaussian_filter(array, factor / 2.355, mode="nearest")  # full width at half maximum: a coarse voxel
        where = np.meshgrid(*(np.arange(n) / factor for n in array.shape), indexing="ij")
        return map_coordinates(smooth[(slice(None, None, factor),) * 3], where, order=1, mode="nearest")

    return _acquired(channels, coarse)


def spacing(channels: Channels, strength: int, rng: np.random.Generator) -> Channels:
    """Voxels 10, 20 or 40 % too large or too small in the header, at random."""
    factor = (1.1, 1.2, 1.4)[strength - 1] ** int(rng.choice((-1, 1)))
    return replace(channels, spacing=tuple(mm * factor for mm in channels.spacing))


def wrong_channel(channels: Channels, strength: int, rng: np.random.Generator) -> Channels:
    """Of several channels, one is a copy of another, two are exchanged, or all are reversed. One channel is folded at
    its 25th or 60th percentile, or inverted, as if it were another sequence."""
    arrays = list(channels.arrays)
    if len(arrays) == 1:

        def folded(values: np.ndarray) -> np.ndarray:
            return np.abs(values - np.percentile(values, (25, 60, 100)[strength - 1]))

        return _changed(channels, folded)
    one, other = (int(number) for number in rng.choice(len(arrays), 2, replace=False))
    if strength == 1:
        arrays[one] = arrays[other].copy()
    elif strength == 2:
        arrays[one], arrays[other] = arrays[other], arrays[one]
    else:
        arrays.reverse()
    return replace(channels, arrays=tuple(arrays))


CORRUPTIONS: Mapping[str, Corruption] = {
    corruption.__name__: corruption
    for corruption in (
        *(noise, blur, bias_field, contrast, gamma),
        *(missing_slices, half_resolution, spacing, wrong_channel),
    )
}


def _changed(channels: Channels, change: Callable[[np.ndarray], np.ndarray]) -> Channels:
    """Change the foreground of each channel; a change takes and returns the values of its voxels, (n,)."""
    arrays = []
    for array in channels.arrays:
        foreground = ~_background(array, _MOST_BACKGROUND)
        result = array.copy()
        result[foreground] = change(array[foreground])
        arrays.append(result)
    return replace(channels, arrays=tuple(arrays))


def _acquired(channels: Channels, change: Callable[[np.ndarray], np.ndarray]) -> Channels:
    """Change each channel, as another acquisition would. What was removed after it, such as the skull, stays removed:
    nnU-Net normalizes the rest alone, which it knows by its values. Next to it, the rest mixes with its black."""
    arrays = (np.where(_background(array, _REMOVED), array, change(array)) for array in channels.arrays)
    return _float(replace(channels, arrays=tuple(arrays)))


def _background(array: np.ndarray, share: float) -> np.ndarray:
    """Where an array has its lowest value, if more than a share of its voxels have it, but not all."""
    is_low: np.ndarray = array == array.min()
    return is_low if share < is_low.mean() < 1 else np.zeros_like(is_low)


def _float(channels: Channels) -> Channels:
    return replace(channels, arrays=tuple(array.astype(np.float32) for array in channels.arrays))


def corrupt(
    images: Sequence[sitk.Image], kind: str, strength: int, *, seed: int = 0, case: str = ""
) -> list[sitk.Image]:
    """Corrupt the channels of a case.

    Args:
        images: of three axes, on one grid.
        kind: a key of ``CORRUPTIONS``.
        strength: 1, 2 or 3.
        seed, case: decide with the kind what is drawn at random.

    Returns:
        float32 images, with the grid of the first.
    """
    first = images[0]
    arrays = tuple(sitk.GetArrayFromImage(image).transpose(2, 1, 0).astype(np.float32) for image in images)
    corrupted = CORRUPTIONS[kind](Channels(arrays, first.GetSpacing()), strength, _generator(kind, seed, case))
    results = []
    for array in corrupted.arrays:
        result = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0), np.float32))
        result.CopyInformation(first)
        result.SetSpacing(corrupted.spacing)
        results.append(result)
    return results


def _generator(kind: str, seed: int, case: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(case.encode()), zlib.crc32(kind.encode())])


def remaining_slices(image: sitk.Image, on: sitk.Image, strength: int, *, seed: int = 0, case: str = "") -> sitk.Image:
    """An image without the slices that ``missing_slices`` takes from images on its grid.

    Args:
        image: of labels, as many voxels as ``on``.
        on: an image with the voxel size of the clean images.
        strength, seed, case: as of ``corrupt``.
    """
    axis, missing = _missing(on.GetSize(), on.GetSpacing(), strength, _generator("missing_slices", seed, case))
    array = sitk.GetArrayFromImage(image)  # z, y, x
    result = sitk.GetImageFromArray(np.delete(array, missing, 2 - axis))
    result.SetSpacing(on.GetSpacing())
    return result


def cases_of(images: Path, ending: str = ENDING) -> dict[str, list[Path]]:
    """The files of the channels of each case in a folder, ``CASE_0000.ENDING``.

    Raises:
        UserError: there are none.
    """
    channels, _ = channels_by_case(images, ending)
    if not channels:
        raise UserError(f"{images} has no images CASE_0000{ending}; see -i and --ending")
    return {
        case: [images / image_name(case, number, ending) for number in sorted(numbers)]
        for case, numbers in channels.items()
    }


def check_cases(cases: Mapping[str, Sequence[Path]]) -> None:
    """Check that all images can be corrupted.

    Raises:
        UserError: one is damaged or cannot be read, or those of a case are not 3D images of one size.
    """
    for first, *others in cases.values():
        size = _size(first)
        if len(size) != 3:
            raise UserError(f"{first} has {len(size)} axes, expected a 3D image")
        for file in others:
            if (own := _size(file)) != size:
                raise UserError(f"{file} has {lengths(own)} voxels, {first.name} {lengths(size)}: expected the same")


def _size(file: Path) -> tuple[int, ...]:
    """Voxels along x, y and z.

    Raises:
        UserError: as of ``check_cases``.
    """
    if (problem := payload_problem(file)) is not None:
        raise UserError(f"{file} {problem}")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise UserError(f"{file}: SimpleITK cannot read it") from error
    size: tuple[int, ...] = reader.GetSize()
    return size


def corrupt_folder(cases: Mapping[str, Sequence[Path]], out: Path, kind: str, strength: int, *, seed: int = 0) -> None:
    """Write the images of some cases, corrupted, to a new folder, which appears complete or not at all.

    Args:
        cases: files of the channels, by case.

    Raises:
        OSError: the folder exists and is not empty, or cannot be written.
    """
    with atomic_folder(out) as draft:
        for case, files in cases.items():
            channels = [sitk.ReadImage(str(file)) for file in files]
            for file, image in zip(files, corrupt(channels, kind, strength, seed=seed, case=case), strict=True):
                sitk.WriteImage(image, str(draft / file.name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--images", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", choices=list(CORRUPTIONS), default=list(CORRUPTIONS))
    parser.add_argument("--strengths", nargs="+", type=int, choices=STRENGTHS, default=list(STRENGTHS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ending", default=ENDING, help="of the image files (default: %(default)s)")
    args = parser.parse_args()
    folders = {(kind, one): args.out / f"{kind}_{one}" for kind, one in itertools.product(args.kinds, args.strengths)}
    try:
        for folder in folders.values():
            if folder.exists():
                raise UserError(f"{folder} exists: name another -o, or remove it")
        cases = cases_of(args.images, args.ending)
        check_cases(cases)
        for (kind, strength), folder in folders.items():
            corrupt_folder(cases, folder, kind, strength, seed=args.seed)
            print(f"{count_of(len(cases), 'case')} in {folder}", flush=True)
    except (UserError, OSError) as error:  # the latter name the file
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
