"""One HTML file per case: image, prediction and best components in three linked planes; the ranking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.explain.explanation import Assessment, Explanation
from factorizer_nnunet.explain.outputs import MAP_UNIT
from factorizer_nnunet.explain.page_data import page_data
from factorizer_nnunet.explain.page_script import SCRIPT, STYLE
from factorizer_nnunet.pages import style
from factorizer_nnunet.pages.markup import cell, document, embedded_json, legend, number, short, table, text_of


def write_page(file: Path, explanation: Explanation, top: int, channels: Sequence[str]) -> None:
    """Write the page atomically, with the ``top`` components of each class and layer; ``channels`` are names."""
    data = page_data(explanation, top, channels)
    embedded = embedded_json(data)
    pieces = [
        f"<h1>{text_of(explanation.case)}</h1>",
        f'<p class="soft">{_summary(explanation)}</p>',
        _controls(data),
        '<div id="views"></div>',
        "<h2>Components</h2>",
        _explanation_of_columns(explanation),
        _ranking(explanation),
        f'<script type="application/json" id="data">{embedded}</script>',
    ]
    title = f"{explanation.case}: components"
    write_text_atomically(file, document(title, style.STYLE + STYLE, style.SCRIPT + SCRIPT, "\n".join(pieces)))


def _summary(explanation: Explanation) -> str:
    grid = explanation.geometry.grid
    volumes = ", ".join(
        f"{text_of(name)} {short(np.isin(explanation.prediction, values).sum() * grid.voxel_mm3 / 1000)} ml"
        for name, values in explanation.classes.items()
    )
    size = " × ".join(str(n) for n in grid.size)
    spacing = " × ".join(short(mm) for mm in grid.spacing)
    return (
        f"{size} voxels of {spacing} mm; {len(explanation.assessments)} components in "
        f"{text_of(', '.join(explanation.layers))}; predicted: {volumes}"
    )


def _controls(data: dict[str, Any]) -> str:
    def choice(key: str, label: str, names: Sequence[str]) -> str:
        options = "".join(f"<option>{text_of(name)}</option>" for name in names)
        return f'<label>{label} <select id="{key}">{options}</select></label>'

    names = [one["name"] for one in data["classes"]]
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
        f'<div class="controls">{choice("class", "components for", names)}'
        f"{choice('channel', 'image', [one['name'] for one in data['images']])}{sliders}"
        '<label>map opacity <input type="range" id="opacity" min="0" max="100" value="70"></label>'
        f"{outlined}</div>{legend((one['name'], one['colour']) for one in data['classes'])}"
    )


def _explanation_of_columns(explanation: Explanation) -> str:
    deletion = (
        "<b>Dice and ml without it</b>: the case is predicted again with the head left out; Dice between the two "
        "predictions of the class, and the change in its volume."
        if any(one.deletion for one in explanation.assessments)
        else "The deletion test was not requested (--deletion)."
    )
    return (
        f"<p>A map shows the factor V of one head, put back in space. Its values are the {text_of(MAP_UNIT)}. "
        "<b>AUC</b>: probability that a voxel of the class has a higher value than another voxel of the scored box. "
        "0.5 means no separation; a component far below 0.5 avoids the class, which is as informative as marking it. "
        "<b>Energy</b>: share of the layer's squared features that the component reconstructs; "
        f"<b>of its head</b>: the same share within its own head. {deletion}</p>"
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
        cells = [cell(one.component.name)]
        cells += [number(share, f"{share:.2%}") for share in (one.energy_share, one.head_share)]
        for name in explanation.classes:
            cells += _cells(one, name, tested, with_truth)
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return table(heads, rows, sortable=True)


def _cells(one: Assessment, name: str, tested: bool, with_truth: bool) -> list[str]:
    """A component's cells for one class."""
    cells = []
    for separations in (one.predicted, one.true):
        if separations is not None:
            cells += [number(separations[name].auc), number(separations[name].correlation)]
    if tested:
        change = None if one.deletion is None else one.deletion[name]
        formats = {"dice_with_prediction": "", "volume_change_ml": "+.3g"}
        if with_truth:
            formats["dice_change"] = "+.3f"
        for value, form in ((getattr(change, key, None), form) for key, form in formats.items()):
            cells.append(number(value, format(value, form) if form and value is not None else None))
    return cells
