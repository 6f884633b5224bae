"""Whether the channels of a case lie on one grid.

nnU-Net's readers stop at other sizes without a reason and only warn about other places: the channels would then be
predicted as if they showed the same anatomy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk  # noqa: N813

from factorizer_nnunet.imaging.grid import geometry_difference, grid_from_sitk, spacing_difference


def channel_grid_problem(files: Sequence[Path]) -> str | None:
    """The first file of a case on another grid than its first one, and what differs; None if all share one.

    A 4D file is one of these, too, unless it is the only one: nnU-Net takes that for all channels. Formats whose
    headers SimpleITK cannot read have no grid, and are left to nnU-Net's readers.
    """
    headers = {file: _header(file) for file in files} if len(files) > 1 else {}
    for file, header in headers.items():
        if header is not None and (volumes := math.prod(header.GetSize()[3:])) > 1:
            return f"{file.name} is 4D, with {volumes} volumes. Save one volume for each channel"
    grids = {file: None if header is None else grid_from_sitk(header) for file, header in headers.items()}
    reference = grids.get(files[0])
    for file, grid in grids.items():
        if grid is None or reference is None:
            continue
        difference = geometry_difference(grid, reference) or spacing_difference(grid.spacing, reference.spacing)
        if difference is not None:
            return f"{file.name}: {difference} of {files[0].name}. Resample it to that grid"
    return None


def _header(file: Path) -> sitk.ImageFileReader | None:
    """None where SimpleITK cannot read it."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(os.fspath(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return reader
