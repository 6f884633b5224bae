"""What worker processes do for a prediction: read and preprocess images, and write predictions."""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Stamp
from factorizer_nnunet.imaging.checks import not_finite_problem
from factorizer_nnunet.nnunet.absent_channels import channels_of_zeros, leave_out, with_absent
from factorizer_nnunet.nnunet.image_files import ImageCase
from factorizer_nnunet.nnunet.prediction_record import image_stamps
from factorizer_nnunet.prediction.channel_grids import channel_grid_problem
from factorizer_nnunet.prediction.description import ModelDescription
from factorizer_nnunet.prediction.image_checks import check_image, check_memory, check_not_flattened
from factorizer_nnunet.prediction.image_reading import Properties, check_complete, read_images, readable_by
from factorizer_nnunet.prediction.image_warnings import image_warnings
from factorizer_nnunet.prediction.measuring import Measured, write_passes
from factorizer_nnunet.prediction.memory import MemoryLimit
from factorizer_nnunet.prediction.outputs import PROBABILITIES, PROPERTIES, Outputs
from factorizer_nnunet.prediction.probabilities import write_probabilities
from factorizer_nnunet.prediction.segmentation import Output, segmentation_of
from factorizer_nnunet.prediction.uncertainty import write_maps


@dataclass(frozen=True)
class Preprocessed:
    """A case as the networks take it.

    Attributes:
        data: (channels, *spatial), float32, for each model.
        properties: what nnU-Net needs to return to the image's grid, for each model.
        images: stamps of the files it was read from.
        seconds: that reading and preprocessing took.
        warnings: what gives reason to doubt, see ``image_warnings``.
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
        check_memory(image, properties, models, memory)
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
    warnings = tuple(image_warnings(image, data[0], of_each[0], models))
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
    check_image(image, properties, model, memory)
    absent = channels_of_zeros(image) if model.takes_absent else ()
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at below
        data, segmentation, properties = model.configuration.preprocessor_class(verbose=False).run_case_npy(
            image, previous, properties, model.plans, model.configuration, model.dataset.content
        )
    for number, channel in enumerate(image):
        check_not_flattened(channel, data[number], number, model)
    data = leave_out(data, absent)
    if previous is not None:
        data = np.vstack(
            (data, convert_labelmap_to_one_hot(segmentation[0], model.labels.foreground_labels, data.dtype))
        )
    data = np.ascontiguousarray(data, np.float32)
    if (problem := not_finite_problem(data)) is not None:
        raise UserError(f"after preprocessing, {problem}: check intensities and spacing of the image")
    return data, properties


def export(
    case: str,
    prediction: np.ndarray,
    properties: Properties,
    images: Mapping[str, Stamp],
    model: ModelDescription,
    outputs: Outputs,
    measured: Sequence[Measured] = (),
    warnings: Sequence[str] = (),
) -> float:
    """Write the prediction of a case on the grid of its image, completely or not at all.

    Args:
        case: its name.
        prediction: labels, as ``segmentation_of`` gives them; logits, (classes, z, y, x), if ``outputs`` needs them.
        properties, images: of the case, from ``preprocess``.
        model: which predicted.
        outputs: where to write.
        measured: the passes of each model, if ``outputs`` needs them.
        warnings: about the images, for the record.

    Returns:
        seconds that it took.
    """
    start = time.perf_counter()

    def write(truncated: str) -> None:
        if outputs.passes:
            write_passes(truncated, measured)
        if outputs.scalings is not None:
            write_maps(truncated, prediction, measured[0], outputs.scalings)
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

    outputs.write(case, images, write, readable_by(model.plans), warnings)
    return time.perf_counter() - start
