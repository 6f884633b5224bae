"""Corrupted images of the benchmarks: repeatable, stronger with their strength, and on the grid of the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from benchmarks.corruptions import CORRUPTIONS, STRENGTHS, corrupt, corrupt_folder

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


def test_a_folder_keeps_its_names(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, image in enumerate(channels(2)):
        sitk.WriteImage(image, str(tmp_path / "in" / f"a_b_{number:04d}.nii.gz"))
    assert corrupt_folder(tmp_path / "in", tmp_path / "out", "wrong_channel", 2) == 1
    first, second = (sitk.ReadImage(str(tmp_path / "out" / f"a_b_{n:04d}.nii.gz")) for n in (0, 1))
    np.testing.assert_array_equal(arrays([second, first]), arrays(channels(2)))
