"""Predictions from Python: images or arrays in, labels out, with the same code as ``factorizer-nnunet predict``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import torch
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.absent_channels import advice_for, with_absent
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL
from factorizer_nnunet.prediction.channel_grids import channel_grid_problem
from factorizer_nnunet.prediction.devices import chosen_device
from factorizer_nnunet.prediction.image_reading import check_complete, read_images
from factorizer_nnunet.prediction.memory import MemoryLimit
from factorizer_nnunet.prediction.model import load_model, with_postprocessing
from factorizer_nnunet.prediction.probabilities import class_probabilities, image_shape
from factorizer_nnunet.prediction.segmentation import Output, nnunet_export, segmentation_of
from factorizer_nnunet.prediction.sliding_window import TileOptions, logit_planes
from factorizer_nnunet.prediction.work import preprocess_array

PathLike = str | os.PathLike[str]
Image = PathLike | SimpleITK.Image | np.ndarray


@dataclass(frozen=True)
class Prediction:
    """What was predicted on the grid of the image.

    Attributes:
        labels: (z, y, x), uint8 or uint16; a SimpleITK image if the input was one.
        probabilities: (classes, z, y, x), of classes or regions; None if they were not asked for.
    """

    labels: np.ndarray | SimpleITK.Image
    probabilities: np.ndarray | None = None


class Predictor:
    """A trained model that predicts one image at a time.

    Args:
        model_folder: ``TRAINER__PLANS__CONFIGURATION``, or a folder or zip that ``factorizer-nnunet export`` wrote.
        folds: numbers, or ``all``, which are averaged; by default all numbers that have the checkpoint, else ``all``.
        checkpoint: file name in each fold.
        device: ``cuda``, ``cpu`` or ``mps``; by default a GPU if there is one.
        tile_step_size: of the sliding window, as a fraction of the patch; None: the model's.
        use_mirroring: average over mirrored images where the training mirrored.
        skip_empty_tiles: tiles without any contrast are background without asking the network.
        sums_on_disk: folder for the sums of tiles; None: they are in memory.
        memory: GB that this process may take; an image that needs more is refused. None: all of the machine.
        trusted: whether code in checkpoints may be executed.
        postprocessing: postprocess by the rules that ``tune-postprocessing`` has put into the model's folder.

    Raises:
        UserError: the model or the device cannot be used.

    Examples:
        >>> predictor = Predictor("model", device="cpu", use_mirroring=False)
        >>> prediction = predictor.predict(["a_0000.nii.gz", "a_0001.nii.gz"])
        >>> prediction.labels.ndim, prediction.labels.dtype
        (3, dtype('uint8'))
    """

    def __init__(
        self,
        model_folder: PathLike,
        folds: Sequence[int | str] | None = None,
        *,
        checkpoint: str = CHECKPOINT_FINAL,
        device: str | None = None,
        tile_step_size: float | None = None,
        use_mirroring: bool = True,
        skip_empty_tiles: bool = False,
        sums_on_disk: PathLike | None = None,
        memory: float | None = None,
        trusted: bool = False,
        postprocessing: bool = True,
    ) -> None:
        chosen = None if folds is None else [str(fold) for fold in folds]
        self.device = chosen_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model = load_model(Path(model_folder), chosen, checkpoint, trusted)
        self._model = with_postprocessing(model) if postprocessing else model
        self._predictor = self._model.predictor(
            self.device,
            tile_step_size=self._model.tile_step_size if tile_step_size is None else tile_step_size,
            use_mirroring=use_mirroring,
            on_device=True,
        )
        self._tiles = TileOptions(skip_empty_tiles, None if sums_on_disk is None else Path(sums_on_disk))
        on_gpu = self.device.type == "cuda"
        self._memory = None if memory is None else MemoryLimit(int(memory * 1e9), on_gpu, sums_on_disk is not None)

    def predict(
        self,
        image: Image | Sequence[PathLike | None] | Sequence[SimpleITK.Image | None],
        spacing: Sequence[float] | None = None,
        *,
        previous_stage: np.ndarray | None = None,
        probabilities: bool = False,
    ) -> Prediction:
        """Predict an image.

        Args:
            image: a file or SimpleITK image, or one for each channel; or an array, (z, y, x) or (channels, z, y, x).
                For a model that was trained so, None is an absent channel, and so are zeros in an array.
            spacing: size of voxels in mm along z, y and x, for an array.
            previous_stage: labels of the previous stage, (z, y, x), in a cascade.
            probabilities: whether to return them, which needs memory for all classes in full size.

        Raises:
            UserError: the image does not fit the model, or takes more memory than allowed.
            OSError: a file cannot be read.
        """
        description = self._model.description
        if (previous_stage is None) != (description.configuration.previous_stage_name is None):
            fix = "name labels of the previous stage" if previous_stage is None else "leave out previous_stage"
            raise UserError(f"{self._model.folder}, {self._model.first.configuration}: {fix}")
        array, properties, grid = self._loaded(image, spacing)
        previous = None if previous_stage is None else previous_stage[None]
        if previous is not None and previous.shape[1:] != array.shape[1:]:
            raise UserError(f"previous_stage has the shape {previous.shape[1:]}, the image {array.shape[1:]}")
        data, properties = preprocess_array(array, properties, previous, description, self._memory)
        del array
        planes = logit_planes(self._predictor, torch.from_numpy(data), self._tiles)
        output = Output(planes, data.shape[1:], properties, description)
        labels, values = _with_probabilities(output) if probabilities else (segmentation_of(output), None)
        return Prediction(labels if grid is None else _on_grid(labels, grid), values)

    def _loaded(
        self,
        image: Image | Sequence[PathLike | None] | Sequence[SimpleITK.Image | None],
        spacing: Sequence[float] | None,
    ) -> tuple[np.ndarray, dict[str, Any], SimpleITK.Image | None]:
        """(channels, z, y, x), nnU-Net's properties, and the SimpleITK image whose grid it is."""
        if isinstance(image, np.ndarray):
            if spacing is None or len(spacing) != 3:
                raise UserError("an array needs spacing: three numbers, the size of its voxels in mm along z, y and x")
            array = image[None] if image.ndim == 3 else image
            if array.ndim != 4:
                raise UserError(f"an image has 3 axes, or 4 with channels first; this array has {image.ndim}")
            return array, {"spacing": [float(mm) for mm in spacing]}, None
        if spacing is not None:
            raise UserError("files and SimpleITK images have a spacing of their own: leave it out")
        listed = _listed(image)
        channels = [one for one in listed if one is not None]
        absent = [number for number, one in enumerate(listed) if one is None]
        if not channels:
            raise UserError("an image has at least one channel that is not None")
        if absent and not self._model.description.takes_absent:
            raise UserError(
                f"channel {absent[0]} is None, but {self._model.folder} needs all. "
                f"{advice_for(self._model.first.trainer_name)}"
            )
        images = [one for one in channels if isinstance(one, SimpleITK.Image)]
        reader = self._model.plans.image_reader_writer_class
        if not images:
            files = [Path(one) for one in channels if not isinstance(one, SimpleITK.Image)]
            for file in files:
                check_complete(file)
            if (problem := channel_grid_problem(files)) is not None:
                raise UserError(problem)
            array, properties = read_images(reader(), files, self._model.file_ending)
            return with_absent(array, absent), properties, None
        if issubclass(reader, NibabelIOWithReorient):
            raise UserError("the model turns images to a standard orientation as it reads them: name files instead")
        first = images[0]
        if (
            len(images) < len(channels)
            or any(_grid(one) != _grid(first) for one in images)
            or first.GetDimension() != 3
        ):
            raise UserError("channels must be SimpleITK images of three axes with the same size, spacing and position")
        array = np.stack([SimpleITK.GetArrayViewFromImage(one) for one in images])
        return with_absent(array, absent), {"spacing": list(first.GetSpacing()[::-1])}, first


def _listed(image: object) -> list[PathLike | SimpleITK.Image | None]:
    """The channels of an image that is not an array."""
    listed = []
    for one in image if isinstance(image, (list, tuple)) else [image]:
        if not isinstance(one, (str, os.PathLike, SimpleITK.Image)) and (one is not None or image is None):
            raise UserError(
                "an image is a path, a SimpleITK image or an array, or a list of paths or images, one for each "
                f"channel; this is {type(one).__name__}"
            )
        listed.append(one)
    return listed


def _with_probabilities(output: Output) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities on the image's grid; besides these, only logits on the network's grid and one class."""
    maps = output.maps
    logits = torch.from_numpy(output.take_logits())
    kept = replace(output, planes=logits.unbind(1))  # which can be taken twice
    if maps is None:
        labels, probabilities = nnunet_export(kept, probabilities=True)
        return labels if output.model.postprocessing is None else segmentation_of(kept), probabilities
    probabilities = np.empty((len(logits), *image_shape(output.properties, output.model)), np.float32)
    for number, values in enumerate(class_probabilities(logits, maps, output.properties, output.model)):
        probabilities[number] = values
    return segmentation_of(kept), probabilities


def _grid(image: SimpleITK.Image) -> tuple[tuple[float, ...], ...]:
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def _on_grid(labels: np.ndarray, image: SimpleITK.Image) -> SimpleITK.Image:
    result = SimpleITK.GetImageFromArray(labels)
    result.CopyInformation(image)
    return result
