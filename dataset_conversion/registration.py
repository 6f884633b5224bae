"""Bring an image of the same head onto another grid: rigid registration by mutual information, then resampling.

Between sequences of one examination the head moves by millimetres and the headers are right but for that. So the
search starts from the headers' alignment, goes from coarse to fine (8, 4, 2 mm), and is not trusted to go far: where it
fails, the headers' alignment stays, and `Registration.ok` says so. Mutual information knows nothing of what is bright
in which sequence (Mattes et al., "PET-CT image registration in the chest using free-form deformations", IEEE
Transactions on Medical Imaging 22, 2003).

The same images give the same result to the last bit: one thread, since sums in another order differ, and a fixed seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import SimpleITK as sitk  # noqa: N813

MAX_TRANSLATION_MM = 30.0  # of the middle of the fixed image; a head in a coil has no room for more
MAX_ROTATION_DEG = 20.0
LEVELS_MM = (8.0, 4.0, 2.0)  # voxels are averaged to about this, so thick slices are not thinned out further
JUDGED_AT_MM = 4.0  # resolution at which alignments are compared with one another
BINS = 32
SAMPLES = 150_000  # voxels of the fixed image that the finest level looks at
SEED = 20220926
LEAST_INFORMATION = 0.02  # nats; heads share 0.3 and more, noise 0.001
STILL_MM = 1.0  # a search that ends this near its start without a better value says: the headers are right
_ITERATIONS = 100  # a level; 10 to 20 are usual

Process = TypeVar("Process", bound=sitk.ProcessObject)


@dataclass(frozen=True)
class Registration:
    """How well an image was brought onto another, and how far it was moved from where its header puts it.

    The metrics are negative mutual information in nats at 4 mm: lower is better. NaN: it could not be computed.
    """

    metric_before: float  # as the headers align the images
    metric_after: float  # as the search does, also where its result was not taken
    translation_mm: float  # of the middle of the fixed image, of what was taken: 0 for the headers' alignment
    rotation_deg: float
    ok: bool  # False: the search failed, and the headers' alignment was taken
    text: str


def register(moving: sitk.Image, fixed: sitk.Image) -> tuple[sitk.Transform, Registration]:
    """Find the rigid motion that brings `moving` (3D) onto `fixed` (3D).

    Returns:
        The transform of points of `fixed` to points of `moving`, and its quality. The identity where the search fails,
        which is no exception.
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
            # Said early: on images without common structure the finest level would go astray at length.
            if -after < LEAST_INFORMATION:
                return identity, _kept(before, after, "the images share no structure")
    except RuntimeError as error:  # no overlap, for example
        return identity, _kept(before, after, str(error).strip().splitlines()[-1])
    translation, rotation = _extent(found)
    moved = f"{translation:.1f} mm and {rotation:.1f}°"
    if translation > MAX_TRANSLATION_MM or rotation > MAX_ROTATION_DEG:
        return identity, _kept(before, after, f"it would move the image by {moved}, which is implausible")
    if after < before:
        return found, Registration(before, after, translation, rotation, True, f"moved by {moved}")
    if translation <= STILL_MM and rotation <= STILL_MM:
        return identity, Registration(before, before, 0.0, 0.0, True, "the headers' alignment could not be improved")
    return identity, _kept(before, after, f"{moved} away, the images fit no better than as the headers align them")


def by_headers(moving: sitk.Image, fixed: sitk.Image) -> tuple[sitk.Transform, Registration]:
    """Return the identity and how well it aligns the images: what is left where registration is not wanted."""
    identity = sitk.Euler3DTransform()
    text = "aligned by headers alone, as asked for"
    try:
        images = (_within_percentiles(sitk.Cast(image, sitk.sitkFloat32)) for image in (moving, fixed))
        metric = _metric(*images, identity)
    except RuntimeError as error:
        return identity, Registration(math.nan, math.nan, 0.0, 0.0, False, f"{text}: {str(error).splitlines()[-1]}")
    return identity, Registration(metric, metric, 0.0, 0.0, True, text)


def resample(moving: sitk.Image, fixed: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """Return `moving` on the grid of `fixed`, float32, moved by `transform`, the one that `register` returns.

    Linear, since splines overshoot at the edge of a skull-stripped brain. Where the new grid is coarser by a factor of
    2 or more along an axis, voxels are averaged first: looking at every fourth one would keep its noise and drop the
    others. Outside the field of view it is as dark as the moving image's darkest percent.
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


def _kept(before: float, after: float, reason: str) -> Registration:
    text = f"registration failed, aligned by headers alone: {reason}"
    return Registration(before, after, 0.0, 0.0, False, text)


def _extent(transform: sitk.Euler3DTransform) -> tuple[float, float]:
    """How far the transform moves its centre, mm, and the angle of its rotation, degrees."""
    matrix = np.reshape(transform.GetMatrix(), (3, 3))
    angle = math.degrees(math.acos(min(1.0, max(-1.0, (np.trace(matrix) - 1) / 2))))
    return float(np.linalg.norm(transform.GetTranslation())), angle


def _search(moving: sitk.Image, fixed: sitk.Image, transform: sitk.Euler3DTransform, level_mm: float) -> None:
    """Improve `transform` in place on voxels of about `level_mm`."""
    coarse = _averaged(fixed, [level_mm] * 3)
    method = _method()
    if coarse.GetNumberOfPixels() > SAMPLES:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(SAMPLES / coarse.GetNumberOfPixels(), SEED)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=level_mm / 2, minStep=level_mm / 400, numberOfIterations=_ITERATIONS
    )
    method.SetOptimizerScalesFromPhysicalShift()  # so that a step is one in mm, of rotations, too
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
    """Conversions run one process a core; and the order of sums over threads would change results."""
    process.SetNumberOfThreads(1)
    process.SetNumberOfWorkUnits(1)
    return process


def _averaged(image: sitk.Image, voxel_mm: list[float], round_up: bool = True) -> sitk.Image:
    """Blocks of voxels averaged to voxels of about `voxel_mm`, or below, but at least four voxels along an axis."""
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
    """Values cut off at the 0.5 and 99.5 percentile: one bright vessel must not take most of the bins."""
    low, high = np.percentile(_sample(image), (0.5, 99.5))
    return sitk.Clamp(image, sitk.sitkFloat32, float(low), float(high)) if low < high else image


def _sample(image: sitk.Image) -> np.ndarray:
    values = sitk.GetArrayViewFromImage(image).ravel()
    return values[:: max(1, values.size // 100_000) | 1]
