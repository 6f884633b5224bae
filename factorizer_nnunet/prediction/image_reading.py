"""Read images and segmentations by the reader of the plans, and only files that are complete."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.imaging.payload import payload_problem
from factorizer_nnunet.nnunet.integrity import gzip_damage

Properties = dict[str, Any]  # what nnU-Net needs to bring a prediction back to the image's grid

_SAVE_AGAIN = "Save it again in a format that SimpleITK reads, with axes at right angles"


def read_images(reader: BaseReaderWriter, files: Sequence[Path], file_ending: str) -> tuple[np.ndarray, Properties]:
    """Read the channels of a case; some readers know their formats only by an ending in lower case.

    Returns:
        (channels, *spatial) in the order of nnU-Net's readers, and what they keep of the header.

    Raises:
        UserError: SimpleITK cannot read a file; other readers raise exceptions of their own.
    """
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
