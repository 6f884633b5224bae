"""Probabilities on the image's grid, and nnU-Net's file of them, class by class: never all of them in full size."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from factorizer_nnunet.prediction.description import ModelDescription
from factorizer_nnunet.prediction.resampling import AxisMap, keeps_type


def write_probabilities(
    file: Path, logits: Tensor, maps: Sequence[AxisMap], properties: Mapping[str, Any], model: ModelDescription
) -> None:
    """Write what ``numpy.savez_compressed(file, probabilities=...)`` writes in nnU-Net's export.

    Args:
        file: to write.
        logits, maps, properties, model: as of ``class_probabilities``.
    """
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)),
        "fortran_order": False,
        "shape": (len(logits), *image_shape(properties, model)),
    }
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("probabilities.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, header)
        for probabilities in class_probabilities(logits, maps, properties, model):
            for plane in probabilities:
                member.write(np.ascontiguousarray(plane).data)


def image_shape(properties: Mapping[str, Any], model: ModelDescription) -> tuple[int, ...]:
    """The shape of an image in the axis order of its reader."""
    return tuple(int(properties["shape_before_cropping"][axis]) for axis in model.plans.transpose_backward)


def class_probabilities(
    logits: Tensor, maps: Sequence[AxisMap], properties: Mapping[str, Any], model: ModelDescription
) -> Iterator[np.ndarray]:
    """Yield the probabilities of each class or region on the image's grid, float32, in the axis order of the reader.

    Args:
        logits: (classes, z, y, x), on the network's grid.
        maps: from there to the cropped image, one for each spatial axis.
        properties: of the case, from preprocessing.
        model: which predicted.
    """
    has_regions = model.labels.has_regions
    rounds = keeps_type(model.configuration.resampling_fn_probabilities)
    # Softmax is exp(logit - log(sum of exp)): the first pass over the classes makes that sum, the second the quotients.
    total = None if has_regions else _log_sum(logits, maps, rounds)
    for number, one in enumerate(logits):
        values = _resampled(one, maps, rounds)
        values = values.sigmoid_() if total is None else values.sub_(total).exp_()
        outside = float(number == 0 and not has_regions)  # of the crop there is background
        yield _in_frame(values, outside, properties, model)


def on_image_grid(
    values: np.ndarray, maps: Sequence[AxisMap], properties: Mapping[str, Any], model: ModelDescription
) -> np.ndarray:
    """Values on the network's grid, (z, y, x), interpolated to the image's, float32; 0 outside of the crop."""
    return _in_frame(_resampled(torch.from_numpy(values).float(), maps, False), 0.0, properties, model)


def _in_frame(values: Tensor, outside: float, properties: Mapping[str, Any], model: ModelDescription) -> np.ndarray:
    """Values of the cropped image in the complete one, in the axis order of its reader."""
    complete = np.full(properties["shape_before_cropping"], outside, np.float32)
    complete[tuple(slice(*bounds) for bounds in properties["bbox_used_for_cropping"])] = values.numpy()
    return complete.transpose(model.plans.transpose_backward)


def _log_sum(logits: Tensor, maps: Sequence[AxisMap], rounds: bool) -> Tensor:
    first, *others = logits
    total = _resampled(first, maps, rounds)
    for one in others:
        torch.logaddexp(total, _resampled(one, maps, rounds), out=total)
    return total


def _resampled(values: Tensor, maps: Sequence[AxisMap], rounds: bool) -> Tensor:
    """Logits of one class on the grid of the cropped image, float32, not sharing memory with ``values``."""
    result = values.to(torch.float32, copy=True)
    for axis, one in enumerate(maps):
        result = one.interpolate(result, axis, slice(0, len(one.low)))
    return result.to(values.dtype).float() if rounds else result
