"""How images are shown: window, channel, side letters and position."""

from __future__ import annotations

import numpy as np
import pytest

from factorizer_nnunet.imaging.channels import display_channel, label_contrast, named_channel
from factorizer_nnunet.imaging.grid import Grid, cropped
from factorizer_nnunet.imaging.planes import PLANES, slice_labels, slice_position
from factorizer_nnunet.imaging.window import ct_window, window_of

RNG = np.random.default_rng(5)
SHAPE = (24, 22, 20)


def _head(inside: float = 32, lesion: float = 24) -> tuple[np.ndarray, np.ndarray]:
    """A head in HU within air, a bony shell, and a lesion."""
    radius = np.linalg.norm((np.indices(SHAPE).T - np.array(SHAPE) / 2) / np.array(SHAPE), axis=-1).T
    values = np.where(radius < 0.45, 900.0, -1000.0)
    values[radius < 0.4] = inside
    labelled = np.zeros(SHAPE, bool)
    labelled[10:14, 9:12, 8:11] = True
    values[labelled] = lesion
    return values + RNG.normal(0, 2, SHAPE), labelled


@pytest.mark.parametrize(
    ("lesion", "expected"), [(24, "brain"), (150, "soft tissue"), (-700, "lung"), (900, "bone"), (-100, "soft tissue")]
)
def test_ct_has_the_window_of_the_labelled_organ(lesion: float, expected: str) -> None:
    values, labelled = _head(lesion=lesion)
    assert window_of(values, "0", labelled) == ct_window(expected)


def test_a_liver_among_fat_is_not_a_brain() -> None:
    values, labelled = _head(inside=-95, lesion=55)
    assert window_of(values, "CT", labelled).organ == "soft tissue"
    assert window_of(values).text == "level 40, width 400 HU (soft tissue)"


def test_brain_and_infarct_differ_on_ct() -> None:
    values, labelled = _head(inside=36, lesion=24)
    window = window_of(values, "CT", labelled)
    assert 12 / (window.high - window.low) * 255 > 30  # grey levels
    assert window.text == "level 40, width 80 HU (brain)"


@pytest.mark.parametrize(
    ("name", "is_ct"),
    [
        ("CT", True),
        ("ct", True),
        ("CT_venous", True),
        ("NCCT", True),
        ("T1", False),
        ("octa", False),
        ("contrast", False),
    ],
)
def test_ct_is_a_word_in_the_channel_name(name: str, is_ct: bool) -> None:
    assert bool(window_of(RNG.uniform(0, 80, SHAPE), name).organ) is is_ct


def test_other_images_use_the_body_not_the_noise_around_it() -> None:
    values = np.abs(RNG.normal(0, 5, (40, 40, 40)))
    values[16:24, 16:24, 16:24] = RNG.uniform(300, 1000, (8, 8, 8))  # 0.8 % of the volume
    window = window_of(values, "T2")
    assert 900 < window.high < 1000 and window.low < 5 and not window.organ


def test_a_stripped_and_normalised_brain() -> None:
    values = np.zeros((30, 30, 30))
    values[8:22, 8:22, 8:22] = RNG.normal(0, 1, (14, 14, 14))
    window = window_of(values, "FLAIR")
    assert -3.5 < window.low < -2 and 2 < window.high < 4


def test_empty_and_constant_images_have_a_window() -> None:
    for values in (np.zeros(SHAPE), np.full(SHAPE, 7.0), np.full(SHAPE, np.nan)):
        window = window_of(values)
        assert window.low <= window.high and np.isfinite([window.low, window.high]).all()


def test_the_channel_with_the_largest_contrast_around_the_label() -> None:
    labelled = np.zeros(SHAPE, bool)
    labelled[8:14, 8:14, 8:14] = True
    far = np.zeros(SHAPE)
    far[0, 0, 0] = 1e6  # brighter, but not next to the label
    images = [RNG.normal(100, 10, SHAPE) + far, RNG.normal(100, 10, SHAPE) + 40 * labelled]
    assert display_channel(images, labelled) == 1
    assert 3 < label_contrast(images[1], labelled) < 5  # 40 / 10
    assert display_channel(images, np.zeros(SHAPE, bool)) == 0
    assert named_channel(["T1n", "T2f"], "t2F") == 1 and named_channel(["T1n"], "") is None


def _grid(direction: tuple[float, ...]) -> Grid:
    return Grid((4, 6, 8), (1.0, 2.0, 3.0), (-10.0, 5.0, 7.0), direction)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
def test_side_letters_agree_with_an_asymmetric_phantom(flips: tuple[int, int, int]) -> None:
    """A mark at the patient's left, front and top is shown at the letters L, A and S in every plane."""
    grid = _grid(tuple(map(float, np.diag(flips).ravel())))
    volume = np.zeros(grid.size, np.uint8)
    wanted = (1, -1, 1)  # left, front (against the axis to the back), up
    volume[tuple(-1 if flip * side > 0 else 0 for flip, side in zip(flips, wanted, strict=True))] = 1
    for plane in PLANES.values():
        axis = plane.across
        shown = slice_labels(volume, plane, grid, -1 if flips[axis] * wanted[axis] > 0 else 0)
        ((row, column),) = {(r > shown.shape[0] // 2 - 1, c > shown.shape[1] // 2 - 1) for r, c in np.argwhere(shown)}
        left, right, top, bottom = plane.sides
        assert {right if column else left, bottom if row else top} < {"L", "A", "S"}


def test_sides_are_those_of_radiology() -> None:
    assert PLANES["axial"].sides == ("R", "L", "A", "P")
    assert PLANES["coronal"].sides == ("R", "L", "S", "I")
    assert PLANES["sagittal"].sides == ("A", "P", "S", "I")


def test_positions_in_mm_survive_cropping() -> None:
    grid = _grid((1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    assert slice_position(PLANES["sagittal"], grid, 2) == "R 8 mm"
    assert slice_position(PLANES["coronal"], grid, 1) == "P 7 mm"
    assert slice_position(PLANES["axial"], grid, 0) == "S 7 mm"
    part = cropped(grid, (slice(2, 4), slice(None), slice(1, 3)))
    assert part.size == (2, 6, 2)
    assert slice_position(PLANES["sagittal"], part, 0) == "R 8 mm"
