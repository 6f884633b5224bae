"""Files of an explained case: maps as NIfTI on the original grid, and a JSON file that describes each component."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.explain.components import Component
from factorizer_nnunet.explain.explanation import Assessment, Explanation
from factorizer_nnunet.explain.geometry import Volume

COMPONENTS_FILE = "components.json"
LOADINGS = "_loadings"
MAP_UNIT = "norm over the head's channels of what the component adds to a voxel, in units of the hidden features"
_LARGEST = np.iinfo(np.int16).max


def map_file(component: Component, what: str = "") -> str:
    """File name of a component's map, or of its ``_loadings`` in space."""
    return f"{component.name}{what}.nii.gz"


def write_map(file: Path, volume: Volume) -> None:
    """Write a volume as 16-bit integers with a scale that readers apply.

    The file has half the size of float32, whose further bits would be noise; the error is at most the largest value
    over 65,000.
    """
    largest = float(max(volume.values.max(initial=0), -volume.values.min(initial=0)))
    scale = largest / _LARGEST if largest > 0 else 1.0
    scaled = volume.values / np.float32(scale)
    image = nibabel.Nifti1Image(np.rint(scaled, out=scaled).astype(np.int16), volume.affine)
    image.header.set_slope_inter(scale, 0.0)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, file)


def write_description(folder: Path, explanation: Explanation, with_maps: bool, with_loadings: bool) -> None:
    """Write what each component is and how it ranks."""
    grid = explanation.geometry.grid
    count = len(explanation.assessments)
    content = {
        "case": explanation.case,
        "grid": {"size": grid.size, "spacing_mm": grid.spacing, "origin_mm": grid.origin, "direction": grid.direction},
        "map_unit": MAP_UNIT,
        "scored_voxels": "those of the box that nnU-Net cropped the image to",
        "classes": {name: list(values) for name, values in explanation.classes.items()},
        "best_first": {
            name: {
                layer: [one.component.name for one in explanation.top(layer, name, count)]
                for layer in explanation.layers
            }
            for name in explanation.classes
        },
        "components": [_described(one, with_maps, with_loadings) for one in explanation.assessments],
    }
    write_text_atomically(folder / COMPONENTS_FILE, json.dumps(content, indent=1))


def _described(one: Assessment, with_maps: bool, with_loadings: bool) -> dict[str, Any]:
    files = {"map": map_file(one.component)} if with_maps else {}
    if with_loadings:
        files["loadings"] = map_file(one.component, LOADINGS)
    described = asdict(one)
    component = described.pop("component")
    return {"name": one.component.name, **files, "site": component.pop("layer"), **component, **described}
