"""Align an image of the same head with another grid: rigid registration by mutual information, then resampling.

Between sequences of one examination the head moves by millimetres; apart from that the headers are right. The search
therefore starts from the headers' alignment, proceeds from coarse to fine (8, 4, 2 mm), and is not allowed to go far.
If it fails, the headers' alignment is kept and `Registration.ok` is False. Mutual information does not depend on the
contrast of the sequences (Mattes et al., "PET-CT image registration in the chest using free-form deformations", IEEE
Transactions on Medical Imaging 22, 2003).

Equal images give bitwise equal results: the seed is fixed, and one thread keeps the order of sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import SimpleITK as sitk  # noqa: N813

MAX_TRANSLATION_MM = 30.0  # at the centre of the fixed image; a head coil leaves no room for more
MAX_ROTATION_DEG = 20.0
LEVELS_MM = (8.0, 4.0, 2.0)  # target voxel size of averaging, so thick slices are not reduced further
JUDGED_AT_MM = 4.0  # resolution at which alignments are compared
BINS = 32
SAMPLES = 150_000  # voxels of the fixed image used at the finest level
SEED = 20220926
LEAST_INFORMATION = 0.02  # nats; heads share 0.3 and more, noise 0.001
STILL_MM = 1.0  # a search that ends this close to its start without improvement confirms the headers
_ITERATIONS = 100  # per level; usually 10 to 20 are needed

Process = TypeVar("Process", bound=sitk.ProcessObject)


@dataclass(frozen=True)
class Registration:
    """Quality of an alignment, and how far the image was moved from the position in its header.

    The metrics are negative mutual information in nats at 4 mm: lower is better, NaN if it cannot be computed.
    """

    metric_before: float  # of the headers' alignment
    metric_after: float  # of the search result, even if it was discarded
    translation_mm: float  # at the centre of the fixed image; 0 for the headers' alignment
    rotation_deg: float
    ok: bool  # False: the search failed and the headers' alignment was kept
    text: str


def register(moving: sitk.Image, fixed: sitk.Image) -> tuple[sitk.Transform, Registration]:
    """Find the rigid motion that aligns `moving` (3D) with `fixed` (3D).

    Returns:
        The transform from points of `fixed` to points of `moving`, and its quality. If the search fails, this is the
        identity.
    """
    moving, fixed = (_within_percentiles(sitk.Cast(image, sitk.sitkFloat32)) for image in (moving, fixed))
    identity = sitk.Euler3DTransform()
    found = sitk.Euler3DTransform()
    found.SetCenter(fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()]))
    before = after = math.nan
    try:
        before = _metric(moving, fixed, identity)
        for level_mm in LEVELS_MM:
            _search(moving, fixed, found, level_mm)
            after = _metric(moving, fixed, found)
            # Stop early: without common structure the finest level would search for a long time.
            if -after < LEAST_INFORMATION:
                return identity, _failed(before, after, "the images share no structure")
    except RuntimeError as error:  # no overlap, for example
        return identity, _failed(before, after, str(error).strip().splitlines()[-1])
    translation, rotation = _extent(found)
    moved = f"{translation:.1f} mm and {rotation:.1f}°"
    if translation > MAX_TRANSLATION_MM or rotation > MAX_ROTATION_DEG:
        return identity, _failed(before, after, f"it would move the image by {moved}, which is implausible")
    if after < before:
        return found, Registration(before, after, translation, rotation, True, f"moved by {moved}")
    if translation <= STILL_MM and rotation <= STILL_MM:
        return identity, Registration(before, before, 0.0, 0.0, True, "the headers' alignment could not be improved")
    return identity, _failed(before, after, f"after moving by {moved}, the images fit no better than before")


def by_headers(moving: sitk.Image, fixed: sitk.Image) -> tuple[sitk.Transform, Registration]:
    """Return the identity and how well it aligns the images, for conversions without registration."""
    identity = sitk.Euler3DTransform()
    text = "aligned by headers only, as requested"
    moving, fixed = (_within_percentiles(sitk.Cast(image, sitk.sitkFloat32)) for image in (moving, fixed))
    try:
        metric = _metric(moving, fixed, identity)
    except RuntimeError as error:
        return identity, Registration(math.nan, math.nan, 0.0, 0.0, False, f"{text}: {str(error).splitlines()[-1]}")
    return identity, Registration(metric, metric, 0.0, 0.0, True, text)


def resample(moving: sitk.Image, fixed: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """Resample `moving` to the grid of `fixed`, float32, with the `transform` returned by `register`.

    Interpolation is linear, because splines overshoot at the edge of a skull-stripped brain. If the new grid is coarser
    by a factor of 2 or more along an axis, voxels are averaged first, which reduces noise. Voxels outside the field of
    view get the 1st percentile of the moving image.
    """
    moving = sitk.Cast(moving, sitk.sitkFloat32)
    background = float(np.percentile(_sample(moving), 1))
    directions = (np.reshape(image.GetDirection(), (3, 3)) for image in (moving, fixed))
    share = np.square(next(directions).T @ next(directions))  # of each axis of `fixed` in each axis of `moving`
    wanted = share @ np.array(fixed.GetSpacing())
    resampler = _one_thread(sitk.ResampleImageFilter())
    resampler.SetReferenceImage(fixed)
    resampler.SetTransform(transform)
    resampler.SetDefaultPixelValue(background)  # linear interpolation is its default
    return resampler.Execute(_averaged(moving, wanted.tolist(), round_up=False))


def _failed(before: float, after: float, reason: str) -> Registration:
    text = f"registration failed, aligned by headers only: {reason}"
    return Registration(before, after, 0.0, 0.0, False, text)


def _extent(transform: sitk.Euler3DTransform) -> tuple[float, float]:
    """Translation of the transform's centre in mm, and its rotation angle in degrees."""
    matrix = np.reshape(transform.GetMatrix(), (3, 3))
    angle = math.degrees(math.acos(min(1.0, max(-1.0, (np.trace(matrix) - 1) / 2))))
    return float(np.linalg.norm(transform.GetTranslation())), angle


def _search(moving: sitk.Image, fixed: sitk.Image, transform: sitk.Euler3DTransform, level_mm: float) -> None:
    """Improve `transform` in place, using voxels of about `level_mm`."""
    coarse = _averaged(fixed, [level_mm] * 3)
    method = _method()
    if coarse.GetNumberOfPixels() > SAMPLES:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(SAMPLES / coarse.GetNumberOfPixels(), SEED)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=level_mm / 2, minStep=level_mm / 400, numberOfIterations=_ITERATIONS
    )
    method.SetOptimizerScalesFromPhysicalShift()  # so that steps of rotations are in mm, too
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(coarse, _averaged(moving, [level_mm] * 3))


def _metric(moving: sitk.Image, fixed: sitk.Image, transform: sitk.Transform) -> float:
    method = _method()
    method.SetInitialTransform(transform)
    return method.MetricEvaluate(_averaged(fixed, [JUDGED_AT_MM] * 3), _averaged(moving, [JUDGED_AT_MM] * 3))


def _method() -> sitk.ImageRegistrationMethod:
    method = _one_thread(sitk.ImageRegistrationMethod())
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _one_thread(process: Process) -> Process:
    """Restrict to one thread: conversions run one process per core, and the order of sums must not vary."""
    process.SetNumberOfThreads(1)
    process.SetNumberOfWorkUnits(1)
    return process


def _averaged(image: sitk.Image, voxel_mm: list[float], round_up: bool = True) -> sitk.Image:
    """Average blocks of voxels to voxels of about `voxel_mm`, or less, but keep at least four voxels along an axis."""
    half = 0.5 if round_up else 1e-6
    factors = [
        min(max(1, int(wanted / spacing + half)), max(1, size // 4))
        for wanted, spacing, size in zip(voxel_mm, image.GetSpacing(), image.GetSize(), strict=True)
    ]
    if max(factors) == 1:
        return image
    shrinker = _one_thread(sitk.BinShrinkImageFilter())
    shrinker.SetShrinkFactors(factors)
    return shrinker.Execute(image)


def _within_percentiles(image: sitk.Image) -> sitk.Image:
    """Clip values at the 0.5 and 99.5 percentile, so that a bright vessel does not occupy most bins."""
    low, high = np.percentile(_sample(image), (0.5, 99.5))
    return sitk.Clamp(image, sitk.sitkFloat32, float(low), float(high)) if low < high else image


def _sample(image: sitk.Image) -> np.ndarray:
    values = sitk.GetArrayViewFromImage(image).ravel()
    return values[:: max(1, values.size // 100_000) | 1]
