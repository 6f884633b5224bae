"""Corrupted images of the benchmarks: repeatable, stronger with their strength, and on the grid of the labels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from benchmarks.corruptions import CORRUPTIONS, STRENGTHS, corrupt, remaining_slices

SPACING = (1.0, 1.5, 3.0)


def channels(count: int) -> list[sitk.Image]:
    """Images with a background of zeros around a smooth pattern with some texture."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (12, 14, 16)), indexing="ij")
    texture = np.random.default_rng(3).random((12, 14, 16))
    images = []
    for number in range(count):
        pattern = 100 + 50 * np.sin((3 + number) * x + y) * np.cos(2 * z) + 10 * texture
        image = sitk.GetImageFromArray(np.where(x**2 + y**2 + z**2 < 1, pattern, 0).astype(np.float32))
        image.SetSpacing(SPACING)
        image.SetOrigin((5, 6, 7))
        images.append(image)
    return images


def arrays(images: list[sitk.Image]) -> np.ndarray:
    return np.stack([sitk.GetArrayFromImage(image) for image in images])


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_strength_is_repeatable_and_changes_more(kind: str, count: int) -> None:
    clean = channels(count)
    changes = []
    for strength in STRENGTHS:
        once = corrupt(clean, kind, strength, seed=1, case="a")
        again = corrupt(clean, kind, strength, seed=1, case="a")
        np.testing.assert_array_equal(arrays(once), arrays(again))
        assert np.isfinite(arrays(once)).all()
        assert all(image.GetSize() == clean[0].GetSize() and image.GetOrigin() == (5, 6, 7) for image in once)
        if kind == "spacing":
            np.testing.assert_array_equal(arrays(once), arrays(clean))
            changes.append(abs(np.log(once[0].GetSpacing()[0] / SPACING[0])))
        else:
            assert all(image.GetSpacing() == SPACING for image in once)
            changes.append(float(np.abs(arrays(once) - arrays(clean)).mean()))
    assert changes[0] > 0
    if kind != "wrong_channel":
        assert changes == sorted(changes)
        assert changes[-1] > changes[0]


def test_what_is_drawn_depends_on_the_seed_and_the_case() -> None:
    clean = channels(1)
    drawn = [arrays(corrupt(clean, "noise", 1, seed=seed, case=case)) for seed, case in ((0, "a"), (0, "b"), (1, "a"))]
    assert len({array.tobytes() for array in drawn}) == len(drawn)


def test_background_stays() -> None:
    clean = channels(1)
    for kind in ("noise", "contrast", "gamma", "blur", "half_resolution"):
        assert not arrays(corrupt(clean, kind, 3))[arrays(clean) == 0].any()


def test_air_is_blurred_but_not_what_was_removed() -> None:
    """Voxels of the lowest value that are few are part of the image."""
    image = channels(1)[0][2:14, 2:12, 2:10]
    values = sitk.GetArrayFromImage(image)
    air = values == 0
    assert 0.05 < air.mean() < 0.25
    for kind in ("blur", "half_resolution"):
        assert arrays(corrupt([image], kind, 3))[0][air].all()


@pytest.mark.parametrize(("spacing", "axis"), [((1.0, 1.0, 1.0000001), 2), ((3.0, 1.0, 1.0), 0), ((1.0, 3.0, 2.9), 1)])
def test_missing_slices_are_the_thickest_or_the_last_of_equal_ones(spacing: tuple[float, ...], axis: int) -> None:
    image = channels(1)[0] + 1
    image.SetSpacing(spacing)
    missing = arrays(corrupt([image], "missing_slices", 2))[0].T == 1  # x, y, z
    others = tuple(one for one in range(3) if one != axis)
    assert 0 < missing.all(others).sum() < image.GetSize()[axis]


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 3.0), (2.0, 1.0, 1.0)])
def test_what_remains_of_labels_is_what_remains_of_the_image(spacing: tuple[float, ...], strength: int) -> None:
    image = sitk.GetImageFromArray(np.random.default_rng(0).random((12, 14, 16), np.float32))
    image.SetSpacing(spacing)
    (corrupted,) = corrupt([image], "missing_slices", strength, seed=4, case="c")
    corrupted.SetSpacing((9.0, 1.0, 1.0))
    remaining = remaining_slices(corrupted, image, strength, seed=4, case="c")
    kept, before = (sitk.GetArrayFromImage(one).T for one in (remaining, corrupted))
    axis = int(np.argmax(spacing))
    others = tuple(one for one in range(3) if one != axis)
    np.testing.assert_array_equal(kept, np.compress((before != before.min()).any(others), before, axis))
    assert kept.shape[axis] < before.shape[axis] and remaining.GetSpacing() == spacing


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, image in enumerate(channels(2)):
        sitk.WriteImage(image, str(folder / f"a_b_{number:04d}.nii.gz"))
    return folder


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "benchmarks.corruptions", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_a_folder_keeps_its_names(images: Path, tmp_path: Path) -> None:
    result = command("-i", images, "-o", tmp_path / "out", "--kinds", "wrong_channel", "--strengths", 2)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "out" / "wrong_channel_2"
    assert result.stdout == f"1 case in {folder}\n"
    first, second = (sitk.ReadImage(str(folder / f"a_b_{n:04d}.nii.gz")) for n in (0, 1))
    np.testing.assert_array_equal(arrays([second, first]), arrays(channels(2)))
    again = command("-i", images, "-o", tmp_path / "out", "--kinds", "noise", "wrong_channel", "--strengths", 2)
    assert again.returncode == 1
    assert again.stderr == f"error: {folder} exists: name another -o, or remove it\n"
    assert not (tmp_path / "out" / "noise_2").exists()


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _flatten(file: Path) -> None:
    sitk.WriteImage(sitk.ReadImage(str(file))[:, :, 0], str(file))


def _crop(file: Path) -> None:
    sitk.WriteImage(sitk.ReadImage(str(file))[:, :, 2:], str(file))


@pytest.mark.parametrize(
    ("change", "number", "message"),
    [
        (_truncate, 1, "is a truncated or damaged gzip file"),
        (_flatten, 0, "has 2 axes, expected a 3D image"),
        (_crop, 1, "has 16 × 14 × 10 voxels, a_b_0000.nii.gz 16 × 14 × 12: expected the same"),
        (Path.unlink, None, "has no images CASE_0000.nii.gz; see -i and --ending"),
    ],
)
def test_wrong_images_are_named_before_anything_is_written(
    images: Path, tmp_path: Path, change: Callable[[Path], None], number: int | None, message: str
) -> None:
    files = sorted(images.iterdir())
    for file in files if number is None else [files[number]]:
        change(file)
    result = command("-i", images, "-o", tmp_path / "out")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {images if number is None else files[number]} {message}")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_is_not_a_folder_to_write_to(images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    result = command("-i", images, "-o", tmp_path / "out")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and str(tmp_path / "out") in result.stderr
    assert result.stderr.count("\n") == 1
