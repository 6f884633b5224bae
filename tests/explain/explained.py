"""A synthetic explanation with two maps, for pages and files, which need no model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from factorizer_nnunet.explain.blending import BlendedMaps, PatchPosition
from factorizer_nnunet.explain.components import Component
from factorizer_nnunet.explain.deletion import class_changes
from factorizer_nnunet.explain.explanation import Assessment, Explanation
from factorizer_nnunet.explain.geometry import CaseGeometry
from factorizer_nnunet.explain.ranking import bin_numbers, label_histograms, separations
from factorizer_nnunet.explain.recorder import LayerRecord

NAMES = {"lesion </script>": (1,), "core": (2,)}


def explanation(folder: Path, size: tuple[int, int, int], heads: int = 2) -> Explanation:
    """An image of ``size`` (z, y, x) voxels, noise with a ball; the maps have a quarter of its resolution."""
    draw = np.random.default_rng(0)
    distance = np.linalg.norm(np.indices(size) - np.reshape(size, (3, 1, 1, 1)) / 2, axis=0)
    labels = (distance < min(size) / 3).astype(np.int64) + (distance < min(size) / 5)
    maps = BlendedMaps(folder / "maps.npy", heads, size, (4, 4, 4))
    values = torch.rand(heads, *maps.size, generator=torch.Generator().manual_seed(0))
    values[0] += torch.nn.functional.interpolate(torch.from_numpy(labels)[None, None].float(), maps.size)[0, 0]
    maps.add(values, PatchPosition((0, 0, 0), size), torch.ones(size))
    record = LayerRecord(maps, None, torch.ones(heads, 8), torch.ones(heads), torch.ones(heads))
    geometry = CaseGeometry.of(
        {
            "shape_before_cropping": size,
            "bbox_used_for_cropping": [(0, n) for n in size],
            "sitk_stuff": {"spacing": (1.0,) * 3, "origin": (0.0,) * 3, "direction": tuple(np.eye(3).ravel())},
        },
        size,
        (0, 1, 2),
    )
    prediction = labels.transpose(2, 1, 0)
    made = Explanation(
        case="made up",
        image=draw.normal(100, 10, (1, *prediction.shape)).astype(np.float32) + 50 * (prediction > 0),
        prediction=prediction,
        truth=prediction,
        classes=NAMES,
        ignored=None,
        geometry=geometry,
        patch=size,
        properties={},
        records={"encoder-3": record},
    )
    for head in range(1, heads + 1):
        component = Component("encoder-3", head, 1, (8 * head - 8, 8 * head))
        shown = made.map(component).values
        found = separations(label_histograms(bin_numbers(shown), prediction), NAMES)
        changes = class_changes(prediction, prediction, prediction, NAMES, 1.0) if head == 1 else None
        made.assessments.append(Assessment(component, 0.1, 0.8, (0.5,) * 8, float(shown.max()), found, found, changes))
    return made
