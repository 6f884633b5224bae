"""What worker processes do for a prediction: images to what the network sees, and its output to files."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from factorizer_nnunet.nnunet.image_files import ImageCase
from factorizer_nnunet.nnunet.integrity import gzip_damage
from factorizer_nnunet.prediction.outputs import Outputs

Properties = dict[str, Any]


def preprocess(
    case: ImageCase, plans: PlansManager, settings: ConfigurationManager, description: dict[str, Any]
) -> tuple[np.ndarray, Properties]:
    """A case as the network sees it, (channels, *spatial), float32, and what nnU-Net needs for the way back.

    In a cascade the previous stage's segmentation comes after the images, one channel per label.

    Raises:
        OSError: a file is truncated; nnU-Net's readers have exceptions of their own.
    """
    for file in (*case.files, *([case.previous] if case.previous else [])):
        check_whole(file)
    files = [str(file) for file in case.files]
    previous = None if case.previous is None else str(case.previous)
    preprocessor = settings.preprocessor_class(verbose=False)
    data, segmentation, properties = preprocessor.run_case(files, previous, plans, settings, description)
    if previous is not None:
        labels = plans.get_label_manager(description).foreground_labels
        data = np.vstack((data, convert_labelmap_to_one_hot(segmentation[0], labels, data.dtype)))
    return np.ascontiguousarray(data, np.float32), properties


def export(
    case: str,
    logits: np.ndarray,
    properties: Properties,
    plans: PlansManager,
    settings: ConfigurationManager,
    description: dict[str, Any],
    folder: Path,
    probabilities: bool,
) -> None:
    """Write the prediction of a case, (classes, *spatial), on the grid of its image; whole or not at all."""
    outputs = Outputs(folder, description["file_ending"], probabilities, readable_by(plans))
    outputs.write(
        case,
        lambda truncated: export_prediction_from_logits(
            logits, properties, settings, plans, description, truncated, probabilities
        ),
    )


def check_whole(file: Path) -> None:
    """Unpack a ``.gz`` file to its end: SimpleITK takes what is missing for zeros, without a word.

    Raises:
        OSError: it is truncated or damaged.
    """
    damage = gzip_damage(file) if file.suffix == ".gz" else None
    if damage is not None:
        raise OSError(f"{file} is truncated or damaged ({damage})")


def readable_by(plans: PlansManager) -> Callable[[Path], bool]:
    """A function that tells whether a file holds a whole segmentation."""

    def readable(file: Path) -> bool:
        try:
            check_whole(file)
            plans.image_reader_writer_class().read_seg(str(file))
        except Exception:  # readers of many formats, each with exceptions of its own
            return False
        return True

    return readable


def channels_by(plans: PlansManager) -> Callable[[Sequence[Path]], int]:
    """A function that tells how many channels files hold together; 0 where they cannot be read, or not together."""

    def channels(files: Sequence[Path]) -> int:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net prints the shapes of what does not fit
                return len(plans.image_reader_writer_class().read_images([str(file) for file in files])[0])
        except Exception:  # as above; the case will be reported when its turn comes
            return 0

    return channels
