"""One HTML file per case: image, prediction and best components in three planes that move together; the ranking."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.explain.case import Assessment, Explanation
from factorizer_nnunet.explain.display import bytes_of, frame_of, fullest
from factorizer_nnunet.explain.outputs import MAP_UNIT
from factorizer_nnunet.explain.page_script import SCRIPT, STYLE
from factorizer_nnunet.imaging.planes import intensity_range
from factorizer_nnunet.pages import style
from factorizer_nnunet.pages.markup import document, number, short, table, text_of
from factorizer_nnunet.pages.pictures import COLOURS

COLOUR_MAP = "inferno"
_MOST_CHANNELS = 4  # of the image; others would be as large as all else
# Bytes of all maps before compression: the page stays below 25 MB however many classes and stages there are.
_BYTES_OF_MAPS = 10_000_000
_SIDES_OF_MAPS = (96, 80, 64, 48, 32, 24, 16, 8)


def write_page(file: Path, explanation: Explanation, top: int, channels: Sequence[str]) -> None:
    """Write the page.

    Args:
        file: to be written, whole.
        explanation: assessed.
        top: components to show of each class and stage.
        channels: names of the image's channels.
    """
    data = page_data(explanation, top, channels)
    embedded = json.dumps(data).replace("<", "\\u003c")  # so that no name ends the script element
    pieces = [
        f"<h1>{text_of(explanation.case)}</h1>",
        f'<p class="soft">{_summary(explanation)}</p>',
        _controls(data),
        '<div id="views"></div>',
        "<h2>Components</h2>",
        _reading(explanation),
        _ranking(explanation),
        f'<script type="application/json" id="data">{embedded}</script>',
    ]
    title = f"{explanation.case}: components"
    write_text_atomically(file, document(title, style.STYLE + STYLE, style.SCRIPT + SCRIPT, "\n".join(pieces)))


def page_data(explanation: Explanation, top: int, channels: Sequence[str]) -> dict[str, Any]:
    """What the page's script draws: volumes as mosaics of slices in PNG and JPEG files, and what each is."""
    grid = explanation.space.grid
    frame = frame_of(grid)
    shown = explanation.top_of_all(top)
    coarse = next(
        (
            coarse
            for side in _SIDES_OF_MAPS
            if math.prod((coarse := frame_of(grid, side)).size) * len(shown) <= _BYTES_OF_MAPS
        ),
        frame_of(grid, _SIDES_OF_MAPS[-1]),
    )
    images = []
    for name, values in zip(channels, explanation.image[:_MOST_CHANNELS], strict=False):
        low, high = intensity_range(values)
        picture = _mosaic(bytes_of(frame.show(values), low, high), "JPEG")
        images.append({"name": str(name), "low": short(low), "high": short(high), **picture})
    masks = {"prediction": explanation.prediction, "truth": explanation.truth}
    predicted = frame.show(explanation.prediction)
    return {
        "size": frame.size,
        "start": fullest(predicted > 0),
        "images": images,
        "labels": {
            name: _mosaic(np.minimum(frame.show(values), 255).astype(np.uint8), "PNG")
            for name, values in masks.items()
            if values is not None
        },
        "classes": [
            {"name": name, "values": list(values), "colour": COLOURS[i % len(COLOURS)]}
            for i, (name, values) in enumerate(explanation.classes.items())
        ],
        "stages": explanation.stages,
        "maps": {
            one.component.name: {
                "size": coarse.size,
                "largest": short(one.largest),
                **_mosaic(
                    bytes_of(coarse.show(explanation.map(one.component).values), 0.0, one.largest),
                    "PNG",
                ),
            }
            for one in shown
        },
        "best": {
            name: {
                stage: [
                    {"map": one.component.name, "auc": _auc(one, name)} for one in explanation.top(stage, name, top)
                ]
                for stage in explanation.stages
            }
            for name in explanation.classes
        },
        "colours": (matplotlib.colormaps[COLOUR_MAP](np.arange(256))[:, :3] * 255).round().astype(int).tolist(),
    }


def _mosaic(volume: np.ndarray, kind: str) -> dict[str, Any]:
    """A volume (left, back, up) as one picture of all its slices from below, ``columns`` beside each other."""
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


def _auc(one: Assessment, name: str) -> str:
    separation = one.predicted[name]
    return short(separation.auc) + (" (avoids it)" if separation.avoids else "")


def _summary(explanation: Explanation) -> str:
    grid = explanation.space.grid
    volumes = ", ".join(
        f"{text_of(name)} {short(np.isin(explanation.prediction, values).sum() * grid.voxel_mm3 / 1000)} ml"
        for name, values in explanation.classes.items()
    )
    size = " × ".join(str(n) for n in grid.size)
    spacing = " × ".join(short(mm) for mm in grid.spacing)
    return (
        f"{size} voxels of {spacing} mm; {len(explanation.assessments)} components in "
        f"{text_of(', '.join(explanation.stages))}; predicted: {volumes}"
    )


def _controls(data: dict[str, Any]) -> str:
    def choice(key: str, label: str, names: Sequence[str]) -> str:
        options = "".join(f"<option>{text_of(name)}</option>" for name in names)
        return f'<label>{label} <select id="{key}">{options}</select></label>'

    names = [one["name"] for one in data["classes"]]
    legend = "".join(
        f'<span><i style="background:{one["colour"]}"></i>{text_of(one["name"])}</span>' for one in data["classes"]
    )
    outlined = "".join(
        f'<label><input type="checkbox" data-outline="{name}"{" checked" if name == "prediction" else ""}> '
        f"{name} {'(dotted)' if name == 'truth' else '(line)'}</label>"
        for name in data["labels"]
    )
    sliders = "".join(
        f'<label>{name} <input type="range" id="slice-{axis}" min="0" max="{data["size"][axis] - 1}" '
        f'value="{data["start"][axis]}"{" disabled" if data["size"][axis] == 1 else ""}></label>'
        for name, axis in (("axial", 2), ("coronal", 1), ("sagittal", 0))
    )
    return (
        f'<div class="controls">{choice("class", "best for", names)}'
        f"{choice('channel', 'image', [one['name'] for one in data['images']])}{sliders}"
        '<label>map <input type="range" id="opacity" min="0" max="100" value="70"></label>'
        f"{outlined}</div>"
        f'<div class="legend">{legend}</div>'
    )


def _reading(explanation: Explanation) -> str:
    return (
        f"<p>A map is the factor V of one head, folded back to space: {text_of(MAP_UNIT)}. "
        "<b>AUC</b>: probability that a voxel of the class has a higher value than another of the box; 0.5 tells "
        "nothing, and a component far below it avoids the class, which tells as much. "
        "<b>Energy</b>: share of the squared features of the whole stage that the component reconstructs; "
        "<b>of its head</b>: share of its own head's. "
        + (
            "<b>Without it</b>: the case predicted again with the head set to zero; Dice of the class with what was "
            "predicted before, and change of its volume."
            if any(one.deletion for one in explanation.assessments)
            else "The deletion test was not asked for (--deletion)."
        )
        + "</p>"
    )


def _ranking(explanation: Explanation) -> str:
    with_truth = explanation.truth is not None
    tested = any(one.deletion for one in explanation.assessments)
    heads = ["component", "energy", "of its head"]
    for name in explanation.classes:
        heads += [f"{name}: AUC", f"{name}: correlation"]
        heads += [f"{name}: AUC, true", f"{name}: correlation, true"] if with_truth else []
        heads += [f"{name}: Dice without it", f"{name}: ml without it"] if tested else []
        heads += [f"{name}: true Dice change"] if tested and with_truth else []

    def best(one: Assessment) -> float:
        return max((separation.strength or 0.0 for separation in one.predicted.values()), default=0.0)

    rows = []
    for one in sorted(explanation.assessments, key=best, reverse=True):
        cells = [f"<td>{text_of(one.component.name)}</td>"]
        cells += [number(share, f"{share:.2%}") for share in (one.energy_share, one.head_share)]
        for name in explanation.classes:
            for separated in (one.predicted, *([one.true] if with_truth else [])):
                cells += [number(separated[name].auc), number(separated[name].correlation)]
            if tested:
                change = one.deletion[name] if one.deletion else None
                cells += [
                    number(change and change.dice_with_prediction),
                    number(change and change.volume_change_ml, change and f"{change.volume_change_ml:+.3g}"),
                ]
                if with_truth:
                    true = change.dice_change if change else None
                    cells.append(number(true, None if true is None else f"{true:+.3f}"))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return table(heads, rows, sortable=True)
