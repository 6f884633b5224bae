"""Registration finds a known motion between images of different contrast, and reports failure otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from volumes import phantom

from factorizer_nnunet.dataset_conversion.registration import by_headers, register, resample

FIXED = ((46, 54, 38), (3.5, 3.5, 3.5))
THICK = ((110, 130, 26), (1.4, 1.4, 5.0))  # as a FLAIR image: fine in plane, thick slices


def motion(degrees: tuple[float, float, float], shift_mm: tuple[float, float, float]) -> sitk.Euler3DTransform:
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*np.radians(degrees).tolist())
    transform.SetTranslation(shift_mm)
    return transform


def other_contrast(image: sitk.Image) -> sitk.Image:
    """Inverted contrast except for the background."""
    return sitk.Mask(1500 - image * 1.2, image > 1)


def noise(seed: int) -> sitk.Image:
    image = sitk.GetImageFromArray(np.random.default_rng(seed).normal(100, 10, (40, 50, 50)).astype(np.float32))
    image.SetSpacing((3.0, 3.0, 3.0))
    return image


@pytest.mark.parametrize(
    ("degrees", "shift_mm"), [((1, -0.5, 2), (1.5, -1, 2.5)), ((-6, 4, 8), (9, -7, 11)), ((0, 0, 0), (0, 0, -6))]
)
def test_a_known_motion_is_found(degrees: tuple[float, float, float], shift_mm: tuple[float, float, float]) -> None:
    fixed = phantom(*FIXED)
    truth = motion(degrees, shift_mm)  # of points of the moving image to points of the head, where `fixed` lies
    found, quality = register(other_contrast(phantom(*THICK, truth)), fixed)
    points = np.random.default_rng(0).uniform(-50, 50, (40, 3))
    errors = [np.linalg.norm(np.subtract(truth.TransformPoint(found.TransformPoint(p)), p)) for p in points.tolist()]
    assert max(errors) < 1
    assert quality.ok and quality.metric_after < quality.metric_before
    turned = np.trace(np.reshape(truth.GetMatrix(), (3, 3)))
    assert quality.rotation_deg == pytest.approx(np.degrees(np.arccos((turned - 1) / 2)), abs=1)
    assert quality.translation_mm == pytest.approx(np.linalg.norm(shift_mm), abs=1)
    assert f"{quality.translation_mm:.1f} mm" in quality.text


def test_equal_images_give_bitwise_equal_results() -> None:
    images = phantom(*THICK, motion((1, 2, 3), (2, 3, 4))), phantom(*FIXED)
    (one, quality), (other, same) = register(*images), register(*images)
    assert one.GetParameters() == other.GetParameters()
    assert quality == same


def test_identical_images_stay_where_they_are() -> None:
    image = phantom(*FIXED)
    found, quality = register(image, image)
    assert quality.ok
    assert quality.translation_mm < 0.2 and quality.rotation_deg < 0.2
    assert np.linalg.norm(np.subtract(found.TransformPoint((40.0, 40, 40)), (40, 40, 40))) < 0.3


def test_noise_keeps_its_position_and_is_reported_as_failed() -> None:
    found, quality = register(noise(1), noise(2))
    assert not quality.ok
    assert found.TransformPoint((1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)
    assert (quality.translation_mm, quality.rotation_deg) == (0, 0)
    assert "failed" in quality.text and "share no structure" in quality.text


def test_images_without_overlap_fail() -> None:
    far = phantom(*FIXED)
    far.SetOrigin((2000.0, 0.0, 0.0))
    found, quality = register(far, phantom(*FIXED))
    assert not quality.ok and np.isnan(quality.metric_before)
    assert found.TransformPoint((1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)
    assert not by_headers(far, phantom(*FIXED))[1].ok


def test_a_motion_too_large_for_a_head_coil_is_rejected() -> None:
    found, quality = register(phantom((70, 54, 38), FIXED[1], motion((0, 0, 0), (42, 0, 0))), phantom(*FIXED))
    assert not quality.ok
    assert found.TransformPoint((1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)


def test_headers_only_move_nothing_and_report_the_quality() -> None:
    fixed, moving = phantom(*FIXED), phantom(*THICK, motion((0, 0, 6), (5, 0, 0)))
    found, quality = by_headers(moving, fixed)
    assert found.TransformPoint((1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)
    assert quality.ok and quality.metric_before == quality.metric_after
    assert quality.metric_after > by_headers(fixed, fixed)[1].metric_after


def test_resampling_undoes_the_motion() -> None:
    truth, fixed = motion((-3, 2, 4), (4, -3, 5)), phantom(*FIXED)
    moving = phantom((90, 90, 80), (2.0, 2.0, 2.0), truth)
    after = resample(moving, fixed, truth.GetInverse())
    assert after.GetSize() == fixed.GetSize() and after.GetPixelID() == sitk.sitkFloat32
    before = resample(moving, fixed, sitk.Euler3DTransform())
    errors = [np.abs(sitk.GetArrayFromImage(one - fixed)).mean() for one in (after, before)]
    assert errors[0] < 0.3 * errors[1]


def test_resampling_to_a_coarser_grid_averages() -> None:
    """Compare with an explicit mean over 4 × 4 voxels."""
    values = np.random.default_rng(0).normal(100, 20, (6, 48, 48)).astype(np.float32)
    moving = sitk.GetImageFromArray(values)
    fixed = sitk.Image((12, 12, 6), sitk.sitkFloat32)
    fixed.SetSpacing((4.0, 4.0, 1.0))
    fixed.SetOrigin((1.5, 1.5, 0.0))  # its first voxel is the first 4 × 4 ones
    result = sitk.GetArrayFromImage(resample(moving, fixed, sitk.Euler3DTransform()))
    np.testing.assert_allclose(result, values.reshape(6, 12, 4, 12, 4).mean(axis=(2, 4)), rtol=1e-4)


def test_outside_the_field_of_view_it_is_dark() -> None:
    moving = phantom((46, 54, 14), (3.5, 3.5, 3.5)) - 1000.0  # as CT, where air is -1000
    result = sitk.GetArrayFromImage(resample(moving, phantom(*FIXED), sitk.Euler3DTransform()))
    assert (result[0] == -1000).all() and result.min() >= -1000.001
