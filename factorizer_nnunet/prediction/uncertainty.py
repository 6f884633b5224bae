"""Maps of a case on the grid of its image: how unsure the model is, and calibrated probabilities.

``entropy`` is that of the mean of all passes, from 0 to 1: of classes divided by that of equal probabilities, of
regions the largest in bits. ``disagreement`` is the share of passes that do not decide as most do.

Probabilities are calibrated as ``calibration.logit_scaling`` says. Without a calibration the entropy is that of the
network's own probabilities.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from factorizer_nnunet.calibration.logit_scaling import LogitScaling
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.prediction.measuring import Measured
from factorizer_nnunet.prediction.probabilities import class_probabilities, on_image_grid
from factorizer_nnunet.prediction.segmentation import Output

MAPS_FOLDER = "uncertainty"  # below the segmentations, so that nnU-Net's commands do not take maps for segmentations
MAPS_RECORD = "scalings.json"  # of the maps in that folder, by region
ENTROPY, DISAGREEMENT = "entropy", "disagreement"
MAP_ENDING = ".nii.gz"
_LEAST = 1e-6  # probability, so that its logit is finite
_DIGITS = 3  # that are kept: more would only be stored


def map_names(regions: Iterable[str]) -> dict[str, str | None]:
    """The maps of a case by the end of their file names, each with the region whose probability it is, or None."""
    names: dict[str, str | None] = {ENTROPY: None, DISAGREEMENT: None}
    for number, region in enumerate(regions):
        plain = re.sub(r"[^A-Za-z0-9]+", "-", region).strip("-") or str(number)
        name = f"probability_{plain}"
        names[f"{name}-{number}" if name in names else name] = region
    return names


def map_file(case: str, name: str) -> str:
    """The file name of a map."""
    return f"{case}_{name}{MAP_ENDING}"


def calibrated(probabilities: np.ndarray, scaling: LogitScaling) -> np.ndarray:
    """Calibrated probabilities, of the same shape and type."""
    p = np.clip(probabilities, _LEAST, 1 - _LEAST)
    return scaling.probabilities(np.log(p) - np.log1p(-p))


def write_maps(truncated: str, logits: np.ndarray, measured: Measured, scalings: Mapping[str, LogitScaling]) -> None:
    """Write all maps of a case, whose files begin with ``truncated``.

    Args:
        truncated: path of the case's files without their ending.
        logits: (classes, z, y, x), on the network's grid.
        measured: the passes of the case.
        scalings: by region; those of labels may include the background. Empty: nothing is calibrated.

    Raises:
        UserError: nnU-Net's plans name resampling of their own.
    """
    model, properties = measured.model, measured.properties
    tensor = torch.from_numpy(logits)
    maps = Output(tensor.unbind(1), logits.shape[1:], properties, model).maps
    if maps is None:
        raise UserError("--uncertainty cannot follow the resampling that these plans name. Leave it out")
    folder = Path(truncated)
    regions = {region: name for name, region in map_names(scalings).items() if region is not None}
    has_regions = model.labels.has_regions
    total = products = largest = np.zeros(())
    for name, values in zip(model.output_names, class_probabilities(tensor, maps, properties, model), strict=True):
        values = calibrated(values, scalings.get(name, LogitScaling()))
        if has_regions:
            largest = np.maximum(largest, -(values * np.log2(values) + (1 - values) * np.log2(1 - values)))
        else:
            total, products = total + values, products + values * np.log(values)
        if name in regions:
            _write(values, folder.with_name(map_file(folder.name, regions[name])), measured)
    entropy = largest if has_regions else (np.log(total) - products / total) / np.log(len(logits))
    _write(entropy, folder.with_name(map_file(folder.name, ENTROPY)), measured)
    disagreement = on_image_grid(measured.compared.disagreement, maps, properties, model) / 255
    _write(disagreement, folder.with_name(map_file(folder.name, DISAGREEMENT)), measured)


def _write(values: np.ndarray, file: Path, measured: Measured) -> None:
    """Write a map, in the axis order of the image's reader, on the grid that the reader has found."""
    values = np.round(values, _DIGITS).astype(np.float32) + 0.0  # without -0
    properties = measured.properties
    if "nibabel_stuff" in properties:
        _write_by_nibabel(values, file, properties["nibabel_stuff"])
        return
    grid = properties.get("sitk_stuff", {"spacing": [float(mm) for mm in properties["spacing"][::-1]]})
    flat = len(grid["spacing"]) < values.ndim
    image = SimpleITK.GetImageFromArray(values[0] if flat else values)
    image.SetSpacing(grid["spacing"])
    if "origin" in grid:
        image.SetOrigin(grid["origin"])
        image.SetDirection(grid["direction"])
    SimpleITK.WriteImage(image, str(file), useCompression=True)


def _write_by_nibabel(values: np.ndarray, file: Path, grid: Mapping[str, np.ndarray]) -> None:
    """As nnU-Net's readers with nibabel write segmentations."""
    original = grid["original_affine"]
    image = nibabel.Nifti1Image(values.transpose(2, 1, 0), affine=grid.get("reoriented_affine", original))
    if "reoriented_affine" in grid:
        image = image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), io_orientation(original)))
    nibabel.save(image, str(file))
