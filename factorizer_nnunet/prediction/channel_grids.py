"""Whether the channels of a case lie on one grid.

nnU-Net's readers stop at other sizes without a reason and only warn about other places: the channels would then be
predicted as if they showed the same anatomy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk  # noqa: N813

from factorizer_nnunet.imaging.grid import Grid, geometry_difference, grid_from_sitk, spacing_difference


def channel_grid_problem(files: Sequence[Path]) -> str | None:
    """The first file of a case on another grid than its first one, and what differs; None if all share one.

    Formats whose headers SimpleITK cannot read have no grid, and are left to nnU-Net's readers.
    """
    grids = {file: _grid(file) for file in files} if len(files) > 1 else {}
    reference = grids.get(files[0])
    for file, grid in grids.items():
        if grid is None or reference is None:
            continue
        difference = geometry_difference(grid, reference) or spacing_difference(grid.spacing, reference.spacing)
        if difference is not None:
            return f"{file.name}: {difference} of {files[0].name}. Resample it to that grid"
    return None


def _grid(file: Path) -> Grid | None:
    """From the header alone; None for 2D images and where SimpleITK cannot read it."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(os.fspath(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return grid_from_sitk(reader)
