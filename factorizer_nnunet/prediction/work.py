"""What worker processes do for a prediction: read and preprocess images, and write predictions."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.nnunet.image_files import ImageCase
from factorizer_nnunet.nnunet.integrity import gzip_damage
from factorizer_nnunet.prediction.description import ModelDescription
from factorizer_nnunet.prediction.outputs import Outputs

Properties = dict[str, Any]  # what nnU-Net needs to bring a prediction back to the image's grid


def preprocess(case: ImageCase, model: ModelDescription) -> tuple[np.ndarray, Properties]:
    """Read a case and preprocess it as the network expects.

    In a cascade the previous stage's segmentation comes after the images, one channel per label.

    Returns:
        the case, (channels, *spatial), float32, and its properties.

    Raises:
        OSError: a file is truncated; nnU-Net's readers raise exceptions of their own.
    """
    for file in (*case.files, *([case.previous] if case.previous else [])):
        check_complete(file)
    files = [str(file) for file in case.files]
    previous = None if case.previous is None else str(case.previous)
    preprocessor = model.configuration.preprocessor_class(verbose=False)
    data, segmentation, properties = preprocessor.run_case(
        files, previous, model.plans, model.configuration, model.dataset.content
    )
    if previous is not None:
        data = np.vstack(
            (data, convert_labelmap_to_one_hot(segmentation[0], model.labels.foreground_labels, data.dtype))
        )
    return np.ascontiguousarray(data, np.float32), properties


def export(
    case: str, logits: np.ndarray, properties: Properties, model: ModelDescription, folder: Path, probabilities: bool
) -> None:
    """Write the prediction of a case on the grid of its image, completely or not at all.

    Args:
        case: its name.
        logits: (classes, *spatial), as the network returns them.
        properties: from ``preprocess``.
        model: which predicted.
        folder: for the predictions.
        probabilities: whether to write these, too.
    """
    outputs = Outputs(folder, model.dataset.file_ending, probabilities, readable_by(model.plans))
    outputs.write(
        case,
        lambda truncated: export_prediction_from_logits(
            logits, properties, model.configuration, model.plans, model.dataset.content, truncated, probabilities
        ),
    )


def check_complete(file: Path) -> None:
    """Unpack a ``.gz`` file to its end: SimpleITK silently fills a truncated one with zeros.

    Raises:
        OSError: it is truncated or damaged.
    """
    damage = gzip_damage(file) if file.suffix == ".gz" else None
    if damage is not None:
        raise OSError(f"{file} is truncated or damaged ({damage})")


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
