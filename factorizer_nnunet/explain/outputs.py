"""Files of an explained case: maps as NIfTI on the original grid, and a JSON that says what each is."""

from __future__ import annotations

import json
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import nibabel
import numpy as np

from factorizer_nnunet.dataset_conversion.grid import Grid
from factorizer_nnunet.explain.case import Assessment, Explanation
from factorizer_nnunet.explain.sites import Component
from factorizer_nnunet.explain.space import affine
from factorizer_nnunet.files import write_whole

COMPONENTS_FILE = "components.json"
MAP_UNIT = "norm over the head's channels of what the component puts into a voxel, in units of the hidden features"
_LARGEST = np.iinfo(np.int16).max
_WRITERS = 4  # maps that are compressed at a time


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
    largest = float(np.abs(values).max(initial=0))
    scale = largest / _LARGEST if largest > 0 else 1.0
    image = nibabel.Nifti1Image(np.rint(values / scale).astype(np.int16), affine(grid))
    image.header.set_slope_inter(scale, 0.0)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, file)


class MapWriter:
    """Writes maps beside the work that makes them: compressing one takes longer than making it, and needs no Python.

    At most ``_WRITERS`` maps are held: memory does not grow with their number. Leaving the context waits for all.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_WRITERS)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> MapWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for one in self._waiting:
                one.result()

    def write(self, file: Path, values: np.ndarray, grid: Grid) -> None:
        """As ``write_map``; an error of an earlier map is raised here or when the context is left."""
        while len(self._waiting) >= _WRITERS:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(write_map, file, values, grid))


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
    write_whole(folder / COMPONENTS_FILE, json.dumps(content, indent=1))


def _described(one: Assessment, with_maps: bool, with_loadings: bool) -> dict:
    files = {"map": map_file(one.component)} if with_maps else {}
    if with_loadings:
        files["loadings"] = loadings_file(one.component)
    described = asdict(one)
    return {"name": one.component.name, **files, **described.pop("component"), **described}
