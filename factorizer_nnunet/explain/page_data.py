"""What the script of a case's page draws: volumes as mosaics of their slices, in PNG and JPEG files, with names."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from factorizer_nnunet.explain.explanation import Assessment, Explanation
from factorizer_nnunet.imaging.channels import display_channel
from factorizer_nnunet.imaging.display_grid import DisplayGrid, display_grid, largest_slices, to_uint8
from factorizer_nnunet.imaging.grid import Grid
from factorizer_nnunet.imaging.planes import PLANES, slice_position
from factorizer_nnunet.imaging.window import window_of
from factorizer_nnunet.pages.markup import short
from factorizer_nnunet.pages.palette import COLOURS

COLOUR_MAP = "inferno"
_MAX_CHANNELS = 4  # of the image; more would be as large as everything else
# Bytes of all maps before compression: the page stays below 25 MB, however many classes and layers there are.
_BYTES_OF_MAPS = 10_000_000
_SIDES_OF_MAPS = (96, 80, 64, 48, 32, 24, 16, 8)


def page_data(explanation: Explanation, top: int, channels: Sequence[str]) -> dict[str, Any]:
    """Data of the page's script, with the ``top`` components of each class and layer; ``channels`` are names."""
    grid = display_grid(explanation.geometry.grid)
    shown = explanation.top_of_all(top)
    map_grid = _map_grid(explanation.geometry.grid, len(shown))
    labels = {"prediction": explanation.prediction, "truth": explanation.truth}
    best = {
        name: {
            layer: [{"map": one.component.name, "auc": _auc(one, name)} for one in explanation.top(layer, name, top)]
            for layer in explanation.layers
        }
        for name in explanation.classes
    }
    image_grid = explanation.geometry.grid
    return {
        "size": grid.size,
        "shown": display_channel([*explanation.image[: len(channels)][:_MAX_CHANNELS]], explanation.prediction > 0),
        # by axis of space: the position of each slice, such as "S 34.2 mm", and the side letters of its plane
        "positions": {
            plane.across: [slice_position(plane, image_grid, float(number)) for number in grid.indices[plane.across]]
            for plane in PLANES.values()
        },
        "sides": {plane.across: plane.sides for plane in PLANES.values()},
        "planes": {plane.across: name for name, plane in PLANES.items()},
        "start": largest_slices(grid.resample(explanation.prediction) > 0),
        "images": _images(explanation, grid, channels),
        "labels": {
            name: _mosaic(np.minimum(grid.resample(values), 255).astype(np.uint8), "PNG")
            for name, values in labels.items()
            if values is not None
        },
        "classes": [
            {"name": name, "values": list(values), "colour": COLOURS[i % len(COLOURS)]}
            for i, (name, values) in enumerate(explanation.classes.items())
        ],
        "layers": explanation.layers,
        "maps": {one.component.name: _map(explanation, one, map_grid) for one in shown},
        "best": best,
        "colours": (matplotlib.colormaps[COLOUR_MAP](np.arange(256))[:, :3] * 255).round().astype(int).tolist(),
    }


def _auc(one: Assessment, name: str) -> str:
    """The AUC of a component for a class, and whether the component avoids it."""
    separation = one.predicted[name]
    return short(separation.auc) + (" (avoids it)" if separation.avoids else "")


def _map_grid(grid: Grid, number: int) -> DisplayGrid:
    """The finest display grid on which so many maps do not exceed ``_BYTES_OF_MAPS``."""
    for side in _SIDES_OF_MAPS:
        result = display_grid(grid, side)
        if math.prod(result.size) * number <= _BYTES_OF_MAPS:
            break
    return result


def _images(explanation: Explanation, grid: DisplayGrid, channels: Sequence[str]) -> list[dict[str, Any]]:
    images = []
    for name, values in zip(channels, explanation.image[:_MAX_CHANNELS], strict=False):
        window = window_of(values, str(name), explanation.prediction > 0)
        mosaic = _mosaic(to_uint8(grid.resample(values), window.low, window.high), "JPEG")
        images.append({"name": str(name), "low": short(window.low), "high": short(window.high), **mosaic})
    return images


def _map(explanation: Explanation, one: Assessment, grid: DisplayGrid) -> dict[str, Any]:
    values = grid.resample(explanation.map(one.component).values)
    return {"size": grid.size, "largest": short(one.largest), **_mosaic(to_uint8(values, 0.0, one.largest), "PNG")}


def _mosaic(volume: np.ndarray, kind: str) -> dict[str, Any]:
    """A volume (left, back, up) as one picture of all its slices, the lowest first, in rows of ``columns`` slices."""
    width, height, count = volume.shape
    columns = max(1, round(math.sqrt(count * height / width)))
    rows = -(-count // columns)
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    for index in range(count):
        row, column = divmod(index, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = volume[:, :, index].T
    stream = io.BytesIO()
    Image.fromarray(sheet).save(stream, kind, **({"quality": 85} if kind == "JPEG" else {}))
    content = base64.b64encode(stream.getvalue()).decode("ascii")
    return {"columns": columns, "src": f"data:image/{kind.lower()};base64,{content}"}
