"""Corrupted copies of images: what a model in use meets and was not trained for.

    python -m benchmarks.corruptions -i imagesTs -o CORRUPTED --strengths 1 2 3 --seed 0
    python -m benchmarks.corruptions -i imagesTs -o CORRUPTED --kinds noise blur

Writes CORRUPTED/KIND_STRENGTH/CASE_0000.nii.gz, …. All kinds but ``spacing`` keep the grid, so labels of the clean
images fit; with ``spacing``, the header has a wrong voxel size, and labels fit voxel by voxel. What is drawn at random
depends on the seed, the name of the case and the kind, not on the strength.
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

from factorizer_nnunet.nnunet.image_files import case_and_channel

STRENGTHS = (1, 2, 3)
_MOST_BACKGROUND = 0.05  # a lowest value that more voxels have is background, and stays as it is
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
    axis = int(np.argmax(channels.spacing)) if len(set(channels.spacing)) > 1 else 2
    size = channels.arrays[0].shape[axis]
    count = max(1, round((0.1, 0.25, 0.5)[strength - 1] * size))
    first = int(rng.random() * (size - count + 1))
    index = tuple(slice(first, first + count) if one == axis else slice(None) for one in range(3))
    arrays = tuple(array.copy() for array in channels.arrays)
    for array in arrays:
        array[index] = array.min()
    return replace(channels, arrays=arrays)


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
    rng = np.random.default_rng([seed, zlib.crc32(case.encode()), zlib.crc32(kind.encode())])
    corrupted = CORRUPTIONS[kind](Channels(arrays, first.GetSpacing()), strength, rng)
    results = []
    for array in corrupted.arrays:
        result = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0), np.float32))
        result.CopyInformation(first)
        result.SetSpacing(corrupted.spacing)
        results.append(result)
    return results


def corrupt_folder(images: Path, out: Path, kind: str, strength: int, *, seed: int = 0, ending: str = ".nii.gz") -> int:
    """Write the cases of a folder, ``CASE_0000.ENDING``, corrupted to another folder; returns their number."""
    found = [case_and_channel(path.name, ending) for path in sorted(images.iterdir())]
    cases: dict[str, list[int]] = {}
    for case, channel in filter(None, found):
        cases.setdefault(case, []).append(channel)
    out.mkdir(parents=True, exist_ok=True)
    for case, numbers in cases.items():
        names = [f"{case}_{number:04d}{ending}" for number in sorted(numbers)]
        channels = [sitk.ReadImage(str(images / name)) for name in names]
        for name, image in zip(names, corrupt(channels, kind, strength, seed=seed, case=case), strict=True):
            sitk.WriteImage(image, str(out / name))
    return len(cases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--images", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", choices=list(CORRUPTIONS), default=list(CORRUPTIONS))
    parser.add_argument("--strengths", nargs="+", type=int, choices=STRENGTHS, default=list(STRENGTHS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ending", default=".nii.gz", help="of the image files (default: %(default)s)")
    args = parser.parse_args()
    if not args.images.is_dir() or not any(case_and_channel(path.name, args.ending) for path in args.images.iterdir()):
        sys.exit(f"error: {args.images} has no images CASE_0000{args.ending}; see -i and --ending")
    for kind, strength in itertools.product(args.kinds, args.strengths):
        folder = args.out / f"{kind}_{strength}"
        count = corrupt_folder(args.images, folder, kind, strength, seed=args.seed, ending=args.ending)
        print(f"{count} cases in {folder}", flush=True)


if __name__ == "__main__":
    main()
