"""What worker processes do for a prediction: read and preprocess images, and write predictions."""

from __future__ import annotations

import contextlib
import io
import math
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Stamp
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.imaging.checks import constant_problem, is_faint, not_finite_problem
from factorizer_nnunet.imaging.payload import payload_problem
from factorizer_nnunet.nnunet.absent_channels import channels_of_zeros, leave_out, with_absent
from factorizer_nnunet.nnunet.image_files import ImageCase
from factorizer_nnunet.nnunet.integrity import gzip_damage
from factorizer_nnunet.nnunet.prediction_record import image_stamps
from factorizer_nnunet.prediction.channel_grids import channel_grid_problem
from factorizer_nnunet.prediction.description import ModelDescription
from factorizer_nnunet.prediction.measuring import Measured, write_passes
from factorizer_nnunet.prediction.memory import MemoryLimit, case_memory, together
from factorizer_nnunet.prediction.outputs import PROBABILITIES, PROPERTIES, Outputs
from factorizer_nnunet.prediction.probabilities import write_probabilities
from factorizer_nnunet.prediction.segmentation import Output, segmentation_of
from factorizer_nnunet.prediction.uncertainty import write_maps

Properties = dict[str, Any]  # what nnU-Net needs to bring a prediction back to the image's grid

# An image that has so many more voxels at the model's spacing has a wrong spacing in its header: of 10 mm slices,
# 0.5 mm are 20 times as many, and 4 mm voxels in 0.5 mm are 512 times as many.
_MAX_GROWTH = 1000
_SLICE_MM = 100  # of the model's voxels: thicker is a 2D image, to which nnU-Net's readers give 999 mm and more
_NO_NORMALISATION = "NoNormalization"
_FLAT = 1e-2  # a normalised image with a smaller range says nothing: nnU-Net's schemes give a range of 1 or more
_CROPPED_SHAPE = "shape_after_cropping_and_before_resampling"  # nnU-Net's; along the axes of its reader, too
_FAR = 2.0  # factor beyond voxel sizes and extents of the training
_LITTLE_CONTRAST = 0.1  # of a normalised image without its extremes, in standard deviations
_SAMPLED_VOXELS = 100_000  # are enough for percentiles
_SAVE_AGAIN = "Save it again in a format that SimpleITK reads, with axes at right angles"
_LEAST_OF_PATCH = 0.2  # an image that is shorter along an axis is unlike those of the training


@dataclass(frozen=True)
class Preprocessed:
    """A case as the networks take it.

    Attributes:
        data: (channels, *spatial), float32, for each model.
        properties: what nnU-Net needs to return to the image's grid, for each model.
        images: stamps of the files it was read from.
        seconds: that reading and preprocessing took.
        warnings: channels that are absent or have one value, which say nothing about the patient.
    """

    data: tuple[np.ndarray, ...]
    properties: tuple[Properties, ...]
    images: Mapping[str, Stamp]
    seconds: float
    warnings: tuple[str, ...] = ()


def preprocess(case: ImageCase, models: Sequence[ModelDescription], memory: MemoryLimit | None = None) -> Preprocessed:
    """Read a case and preprocess it as each network expects.

    In a cascade the previous stage's segmentation comes after the images, one channel per label.

    Args:
        case: its files.
        models: which will predict it, with the same reader of images.
        memory: what a prediction may take in all; None: all memory of the machine.

    Raises:
        UserError: a file is damaged or cannot be read by SimpleITK; the image has other channels than the model,
            channels on other grids, NaN or infinite voxels, or an impossible spacing, or takes more memory.
        OSError: a file cannot be read; nnU-Net's readers raise exceptions of their own.
    """
    start = time.perf_counter()
    for file in (*case.files, *case.previous):
        check_complete(file)
    if (problem := channel_grid_problem(case.files)) is not None:
        raise UserError(problem)
    stamps = image_stamps(case)
    first = models[0]
    reader = first.plans.image_reader_writer_class()
    image, properties = read_images(reader, case.files, first.dataset.file_ending)
    image = with_absent(image, case.absent)
    if len(models) > 1:
        _check_memory(image, properties, models, memory)
    segmentations = iter(case.previous)
    data, of_each = [], []
    for model in models:
        previous = None
        if model.configuration.previous_stage_name is not None:
            file = next(segmentations)
            previous, _ = reader.read_seg(str(file))
            if not set(np.unique(previous).tolist()) <= model.dataset.label_values:
                raise UserError(f"{file} contains labels that {model.dataset.path} does not declare")
        array, own = preprocess_array(image, dict(properties), previous, model, memory)  # which changes the properties
        data.append(array)
        of_each.append(own)
    warnings = (
        *_empty_channels(image, first.dataset.channel_names, all(model.takes_absent for model in models)),
        *_mostly_padding(image.shape[1:], properties["spacing"], first),
        *_unlike_the_training(of_each[0], first),
        *_outshone_channels(data[0], first),
    )
    return Preprocessed(tuple(data), tuple(of_each), stamps, time.perf_counter() - start, warnings)


def preprocess_array(
    image: np.ndarray,
    properties: Properties,
    previous: np.ndarray | None,
    model: ModelDescription,
    memory: MemoryLimit | None = None,
) -> tuple[np.ndarray, Properties]:
    """Preprocess an image as the network expects.

    Args:
        image: (channels, *spatial), in the order of nnU-Net's readers. Channels of zeros are absent for a model that
            was trained so.
        properties: with ``spacing`` in mm in the order of the axes.
        previous: the previous stage's segmentation in a cascade, (1, *spatial).
        model: which will predict it.
        memory: what a prediction may take in all; None: all memory of the machine.

    Returns:
        ``data`` and ``properties`` of ``Preprocessed``.

    Raises:
        UserError: as ``preprocess``.
    """
    _check_image(image, properties, model, memory)
    absent = channels_of_zeros(image) if model.takes_absent else ()
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at below
        data, segmentation, properties = model.configuration.preprocessor_class(verbose=False).run_case_npy(
            image, previous, properties, model.plans, model.configuration, model.dataset.content
        )
    for number, channel in enumerate(image):
        _check_not_flattened(channel, data[number], number, model)
    data = leave_out(data, absent)
    if previous is not None:
        data = np.vstack(
            (data, convert_labelmap_to_one_hot(segmentation[0], model.labels.foreground_labels, data.dtype))
        )
    data = np.ascontiguousarray(data, np.float32)
    if (problem := not_finite_problem(data)) is not None:
        raise UserError(f"after preprocessing, {problem}: check intensities and spacing of the image")
    return data, properties


def check_logits(logits: torch.Tensor) -> torch.Tensor:
    """Return the output of the network, (classes, …), if all of it is finite.

    nnU-Net adds up outputs in half precision and notices infinity, but not the NaN that two infinities give: every
    comparison with NaN is false, so the segmentation would be empty.

    Raises:
        UserError: it contains NaN or infinity.
    """
    if not torch.isfinite(logits).all():
        raise UserError(
            "the output of the network contains NaN or infinity, so there is no segmentation. Check the image's "
            "intensities; if only some cases fail on a GPU, half precision may overflow: try -device cpu"
        )
    return logits


def read_images(reader: BaseReaderWriter, files: Sequence[Path], file_ending: str) -> tuple[np.ndarray, Properties]:
    """Read the channels of a case; some readers know their formats only by an ending in lower case."""
    names = tuple(str(file) for file in files)
    try:
        return reader.read_images(names)
    except Exception as error:
        if all(name.endswith(file_ending) for name in names):
            if (reason := _of_simpleitk(error)) is None:
                raise
            raise UserError(f"SimpleITK cannot read it ({reason}). {_SAVE_AGAIN}") from error
    with tempfile.TemporaryDirectory() as folder:
        links = [Path(folder, f"{number}{file_ending}") for number in range(len(files))]
        for link, file in zip(links, files, strict=True):
            link.symlink_to(file.absolute())
        return reader.read_images(tuple(map(str, links)))


def _of_simpleitk(error: Exception) -> str | None:
    """What SimpleITK says of a file it cannot read, without where in its code; None for other errors."""
    text = " ".join(str(error).split())
    return text.rpartition("ERROR: ")[2].rstrip("!.") if isinstance(error, RuntimeError) and "ITK" in text else None


def _check_image(
    image: np.ndarray, properties: Mapping[str, Any], model: ModelDescription, memory: MemoryLimit | None
) -> None:
    """Check an image, (channels, *spatial), for what nnU-Net would compute with to a wrong or endless end."""
    expected = len(model.dataset.channel_names)
    if len(image) != expected:
        raise UserError(
            f"the image has {count_of(len(image), 'channel')}, the model takes {expected}, as {model.dataset.path} says"
        )
    with np.errstate(over="ignore"):  # numbers too large for single precision become infinite, as nnU-Net converts them
        single = image.astype(np.float32, copy=False)
    if (problem := not_finite_problem(single)) is not None:
        raise UserError(f"{problem}: nnU-Net would spread them over the entire image. Correct the image")
    spacing = [float(mm) for mm in properties["spacing"]]
    if not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise UserError(
            f"its voxels have {' × '.join(f'{mm:g}' for mm in spacing)} mm. Correct the spacing of its header"
        )
    order = model.plans.transpose_forward
    shape, original = [image.shape[1:][axis] for axis in order], [spacing[axis] for axis in order]
    target = [*original[: len(original) - len(model.configuration.spacing)], *model.configuration.spacing]
    voxels = math.prod(max(1.0, size * mm / to) for size, mm, to in zip(shape, original, target, strict=True))
    sizes = f"voxels of {' × '.join(f'{mm:g}' for mm in original)} mm in the header, {target} mm in the plans"
    if any(size == 1 and mm > _SLICE_MM * to for size, mm, to in zip(shape, original, target, strict=True)):
        raise UserError("it is a single slice (a 2D image), and the model takes volumes. Give it the complete scan")
    if any(round(size * mm / to) < 1 for size, mm, to in zip(shape, original, target, strict=True)):
        raise UserError(f"at the model's spacing it is less than a voxel long ({sizes}). Correct the header's spacing")
    if voxels > _MAX_GROWTH * math.prod(shape):
        raise UserError(f"at the model's spacing it has {voxels:.3g} voxels ({sizes}). Correct the header's spacing")
    _check_memory(image, properties, [model], memory)


def _check_not_flattened(channel: np.ndarray, normalised: np.ndarray, number: int, model: ModelDescription) -> None:
    """Check that something of a channel that is not constant is left after its normalisation, in single precision."""
    scheme = model.configuration.normalization_schemes[number]
    lost = np.ptp(normalised) < _FLAT or is_faint(channel)
    if not lost or scheme == _NO_NORMALISATION or constant_problem(channel) is not None:
        return
    raise UserError(
        f"channel {number} ({model.dataset.channel_names[number]}) has values from {channel.min():g} to "
        f"{channel.max():g}, of which {scheme} leaves nothing. Give it the scale of the training's images"
    )


def _check_memory(
    image: np.ndarray,
    properties: Mapping[str, Any],
    models: Sequence[ModelDescription],
    memory: MemoryLimit | None,
) -> None:
    """Check that an image, (channels, *spatial), can be predicted by these models together."""
    order = models[0].plans.transpose_forward
    shape = [image.shape[1:][axis] for axis in order]
    spacing = [float(properties["spacing"][axis]) for axis in order]
    limit, whose = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "this machine has"
    if memory is not None:
        limit, whose = memory.size, "it may take"
    least = MemoryLimit(limit, on_gpu=True) if memory is None else memory  # unknown: as little as possible
    needed = together([case_memory(shape, spacing, model, limit=least) for model in models]).of_processes(0, 0)
    if needed > limit:
        plans = " and ".join(str([*model.configuration.spacing]) for model in models)
        raise UserError(
            f"it needs {needed / 1e9:.1f} GB at the model's spacing (voxels of "
            f"{' × '.join(f'{mm:g}' for mm in spacing)} mm in the header, {plans} mm in the plans), {whose} "
            f"{limit / 1e9:.1f} GB. Free memory, raise --memory, or predict it on another machine"
        )


def _empty_channels(image: np.ndarray, names: Sequence[str], may_be_absent: bool) -> tuple[str, ...]:
    """Warnings about channels of an image, (channels, *spatial), such as "channel 1 (T2) is constant: …"."""
    absent = channels_of_zeros(image) if may_be_absent else ()
    problems = ["is absent" if number in absent else constant_problem(channel) for number, channel in enumerate(image)]
    return tuple(
        f"channel {number} ({name}) {problem}"
        for number, (name, problem) in enumerate(zip(names, problems, strict=True))
        if problem is not None
    )


def _mostly_padding(shape: Sequence[int], spacing: Sequence[float], model: ModelDescription) -> Iterator[str]:
    """A warning about an image that fills little of a patch along an axis, such as a slice given to a 3D model."""
    order, settings = model.plans.transpose_forward, model.configuration
    axes = len(settings.patch_size)
    image = [shape[axis] * float(spacing[axis]) for axis in order][-axes:]
    patch = [size * mm for size, mm in zip(settings.patch_size, settings.spacing, strict=True)]
    if any(own < _LEAST_OF_PATCH * all_of_it for own, all_of_it in zip(image, patch, strict=True)):
        sizes = [" × ".join(f"{mm:.3g}" for mm in lengths) for lengths in (image, patch)]
        yield f"it has {sizes[0]} mm, a patch of the model {sizes[1]} mm: most is padding. Is it the right image?"


def _unlike_the_training(properties: Mapping[str, Any], model: ModelDescription) -> Iterator[str]:
    """A warning about an image with other voxels or another extent than those of the training, by far."""
    spacing = [float(mm) for mm in properties["spacing"]]
    size = [count * mm for count, mm in zip(properties[_CROPPED_SHAPE], spacing, strict=True)]
    if unlike := model.training.unlike(spacing, size, _FAR, _FAR):
        yield f"it is unlike the training's images: {'; '.join(unlike)}. Is its header right?"


def _outshone_channels(data: np.ndarray, model: ModelDescription) -> Iterator[str]:
    """Warnings about normalised channels in which single voxels leave nearly no contrast to all others."""
    for number, (name, scheme) in enumerate(
        zip(model.dataset.channel_names, model.configuration.normalization_schemes, strict=True)
    ):
        some = data[number].ravel()[:: max(1, data[number].size // _SAMPLED_VOXELS)]
        low, high = np.percentile(some, (0.5, 99.5))
        if scheme != _NO_NORMALISATION and high - low < _LITTLE_CONTRAST and np.ptp(data[number]) > 1:
            yield (
                f"channel {number} ({name}): few voxels are so much brighter or darker than all others that the "
                "normalisation leaves those without contrast. Correct the image"
            )


def export(
    case: str,
    prediction: np.ndarray,
    properties: Properties,
    images: Mapping[str, Stamp],
    model: ModelDescription,
    outputs: Outputs,
    measured: Sequence[Measured] = (),
) -> float:
    """Write the prediction of a case on the grid of its image, completely or not at all.

    Args:
        case: its name.
        prediction: labels, as ``segmentation_of`` gives them; logits, (classes, z, y, x), if ``outputs`` needs them.
        properties, images: of the case, from ``preprocess``.
        model: which predicted.
        outputs: where to write.
        measured: the passes of each model, if ``outputs`` needs them.

    Returns:
        seconds that it took.
    """
    start = time.perf_counter()

    def write(truncated: str) -> None:
        if outputs.passes:
            write_passes(truncated, measured)
        if outputs.temperatures is not None:
            write_maps(truncated, prediction, measured[0], outputs.temperatures)
        labels = prediction
        if outputs.needs_logits:
            logits = torch.from_numpy(prediction)
            output = Output(logits.unbind(1), logits.shape[1:], properties, model)
            maps = output.maps
            if maps is None:
                export_prediction_from_logits(
                    prediction,
                    properties,
                    model.configuration,
                    model.plans,
                    model.dataset.content,
                    truncated,
                    save_probabilities=True,
                )
                if model.postprocessing is None:
                    return
            elif outputs.probabilities:
                write_probabilities(Path(f"{truncated}{PROBABILITIES}"), logits, maps, properties, model)
                Path(f"{truncated}{PROPERTIES}").write_bytes(pickle.dumps(properties))
            labels = segmentation_of(output)
        writer = model.plans.image_reader_writer_class()
        writer.write_seg(labels, f"{truncated}{model.dataset.file_ending}", properties)

    outputs.write(case, images, write, readable_by(model.plans))
    return time.perf_counter() - start


def check_complete(file: Path) -> None:
    """Check that a file has all that its header promises: SimpleITK silently reads what is missing, or NaN, as zeros.

    Raises:
        UserError: it is truncated or damaged, or contains NaN or infinity.
        OSError: it cannot be read.
    """
    problem = payload_problem(file)
    if problem is None and file.suffix.lower() == ".gz" and not file.name.lower().endswith(".nii.gz"):
        damage = gzip_damage(file)
        problem = None if damage is None else f"is truncated or damaged ({damage})"
    if problem is not None:
        raise UserError(f"{file} {problem}")


def readable_by(plans: PlansManager) -> Callable[[Path], bool]:
    """Return a function that says whether a file contains a complete segmentation."""

    def readable(file: Path) -> bool:
        try:
            check_complete(file)
            plans.image_reader_writer_class().read_seg(str(file))
        except Exception:  # readers of many formats, each with exceptions of its own
            return False
        return True

    return readable


def channels_by(plans: PlansManager) -> Callable[[Sequence[Path]], int]:
    """Return a function that counts the channels of some files together; 0 if they cannot be read, or not together."""

    def channels(files: Sequence[Path]) -> int:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net prints the shapes if they do not fit
                return len(plans.image_reader_writer_class().read_images([str(file) for file in files])[0])
        except Exception:  # as above; the case will be reported when its turn comes
            return 0

    return channels
