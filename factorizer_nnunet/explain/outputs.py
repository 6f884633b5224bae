"""Files of an explained case: maps as NIfTI on the original grid, and a JSON that says what each is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import nibabel
import numpy as np

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.explain.case import Assessment, Explanation
from factorizer_nnunet.explain.sites import Component
from factorizer_nnunet.explain.space import affine
from factorizer_nnunet.imaging.grid import Grid

COMPONENTS_FILE = "components.json"
MAP_UNIT = "norm over the head's channels of what the component puts into a voxel, in units of the hidden features"
_LARGEST = np.iinfo(np.int16).max


def map_file(component: Component) -> str:
    """Name of a component's map."""
    return f"{component.name}.nii.gz"


def loadings_file(component: Component) -> str:
    """Name of a component's loadings in space."""
    return f"{component.name}_loadings.nii.gz"


def write_map(file: Path, values: np.ndarray, grid: Grid) -> None:
    """Write values (x, y, z) or (x, y, z, channels) as whole numbers of 16 bits and their scale, which readers apply.

    Half the size of float32, in which only noise would follow; the error is at most the largest value over 65,000.
    """
    largest = float(max(values.max(initial=0), -values.min(initial=0)))
    scale = largest / _LARGEST if largest > 0 else 1.0
    scaled = values / np.float32(scale)
    image = nibabel.Nifti1Image(np.rint(scaled, out=scaled).astype(np.int16), affine(grid))
    image.header.set_slope_inter(scale, 0.0)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, file)


def write_description(folder: Path, explanation: Explanation, with_maps: bool, with_loadings: bool) -> None:
    """Write what each component is and how it ranks."""
    grid = explanation.space.grid
    content = {
        "case": explanation.case,
        "grid": {"size": grid.size, "spacing_mm": grid.spacing, "origin_mm": grid.origin, "direction": grid.direction},
        "map_unit": MAP_UNIT,
        "scored_voxels": "those of the box that nnU-Net cropped the image to",
        "classes": {name: list(values) for name, values in explanation.classes.items()},
        "best_first": {
            name: {
                stage: [one.component.name for one in explanation.top(stage, name, len(explanation.assessments))]
                for stage in explanation.stages
            }
            for name in explanation.classes
        },
        "components": [_described(one, with_maps, with_loadings) for one in explanation.assessments],
    }
    write_text_atomically(folder / COMPONENTS_FILE, json.dumps(content, indent=1))


def _described(one: Assessment, with_maps: bool, with_loadings: bool) -> dict:
    files = {"map": map_file(one.component)} if with_maps else {}
    if with_loadings:
        files["loadings"] = loadings_file(one.component)
    described = asdict(one)
    return {"name": one.component.name, **files, **described.pop("component"), **described}
