"""One HTML file per case: image, prediction and best components in three planes, a viewer, and the ranking."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.wording import lengths, short, today
from factorizer_nnunet.explain.case_viewer import CaseViewer
from factorizer_nnunet.explain.explanation import Assessment, Explanation
from factorizer_nnunet.explain.heat import COLOURS
from factorizer_nnunet.explain.outputs import MAP_UNIT
from factorizer_nnunet.explain.shown import Cut, Shown, cuts_of, heated_cut
from factorizer_nnunet.pages.markup import (
    cell,
    csv_button,
    document,
    legend,
    note,
    number,
    sections,
    table,
    text_of,
)
from factorizer_nnunet.pages.palette import FILL
from factorizer_nnunet.pages.pictures import data_uri, draw, side_for
from factorizer_nnunet.pages.style import SCRIPT, STYLE
from factorizer_nnunet.pages.viewer_script import VIEWER_SCRIPT
from factorizer_nnunet.pages.viewer_style import VIEWER_STYLE

_NOT_SEPARABLE = "not defined: no voxel or every voxel is of this class, or the map is constant"
_NOT_TESTED = "not tested: --deletion leaves out only the best heads of each class and layer"
_EMPTY = "not defined: the class is empty in what is compared"
_MAX_SIDE = 220  # of a picture in pixels
_STYLE = """
.components { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(600px, 100%), 1fr)); gap: .8rem; }
.component { margin: 0; max-width: 760px; background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: .5rem; break-inside: avoid; }
.component figcaption { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: 13px; margin-bottom: .3rem;
  overflow-wrap: anywhere; }
.component button { display: flex; gap: 4px; background: #000; align-items: center; }
.component img { min-width: 0; flex: 1 1 0; width: 0; height: auto; }
.bar { display: inline-flex; gap: .4em; align-items: center; color: var(--soft); margin-left: auto; }
.bar i { display: inline-block; width: 7em; height: .8em; border: 1px solid var(--line); }
"""


def write_page(
    file: Path, explanation: Explanation, top: int, shown: Shown, model: str = "", limit_mb: float = 30.0
) -> None:
    """Write the page atomically.

    Args:
        file: the page.
        explanation: of the case.
        top: how many components of each class and layer are shown.
        shown: the channels.
        model: a short name of the model.
        limit_mb: of the volumes that the viewer stores.
    """
    components = explanation.top_of_all(top)
    viewer = CaseViewer(explanation, shown, components, limit_mb)
    links, body = sections(
        [
            ("prediction", "Image and prediction", _prediction(explanation, shown)),
            *_classes(explanation, top, shown, viewer),
            ("components", "All components", _explanation_of_columns(explanation) + _ranking(explanation, components)),
        ]
    )
    what = f"Components of {model}" if model else "Components"
    lead = note(text_of(f"{what}, {today()}")) + note(_summary(explanation))
    header = f"<header><h1>{text_of(explanation.case)}</h1>{lead}<nav>{links}</nav></header>"
    page = document(
        f"{explanation.case}: {what[0].lower()}{what[1:]}, {today()}",
        STYLE + VIEWER_STYLE + _STYLE,
        SCRIPT + VIEWER_SCRIPT,
        f"{header}{body}{viewer.html()}",
    )
    write_text_atomically(file, page)


def _prediction(explanation: Explanation, shown: Shown) -> str:
    figures = []
    for what, labels in {"prediction": explanation.prediction, "true label": explanation.truth}.items():
        if labels is not None:
            cuts = cuts_of(explanation, shown, explanation.prediction > 0, labels)
            caption = f"<b>{what}</b> on {text_of(shown.caption)}"
            greys = [cut.grey for cut in cuts]
            figures.append(_figure(caption, cuts, greys, _MAX_SIDE, f"{explanation.case}, {what} on {shown.caption}"))
    lead = "Click a picture to open the case: all slices and channels, window, prediction and components."
    return f'{note(lead)}{legend(explanation.classes)}<div class="components">{"".join(figures)}</div>'


def _classes(explanation: Explanation, top: int, shown: Shown, viewer: CaseViewer) -> Iterable[tuple[str, str, str]]:
    """Anchor, title and HTML of a section for each class; every map is made once, and added to the viewer."""
    labels = explanation.prediction
    cuts = {name: cuts_of(explanation, shown, np.isin(labels, v)) for name, v in explanation.classes.items()}
    places: defaultdict[str, list[str]] = defaultdict(list)  # of each component: the classes that show it
    for name in explanation.classes:
        for layer in explanation.layers:
            for one in explanation.top(layer, name, top):
                places[one.component.name].append(name)
    side = min(side_for(3 * sum(map(len, places.values()))), _MAX_SIDE)
    figures: dict[tuple[str, str], str] = {}
    for one in viewer.components:
        values = explanation.map(one.component).values
        viewer.add(one, values)
        for name in places[one.component.name]:
            pictures = [heated_cut(explanation, cut, values, one.largest) for cut in cuts[name]]
            separation = one.predicted[name]
            avoids = " (avoids it)" if separation.avoids else ""
            caption = f"<b>{one.component.name}</b> AUC {short(separation.auc)}{avoids}{_bar(one)}"
            alt = f"{one.component.name} on {shown.caption}"
            figures[name, one.component.name] = _figure(caption, cuts[name], pictures, side, alt, one.component.name)
    for place, name in enumerate(explanation.classes):
        parts = []
        for layer in explanation.layers:
            own = [figures[name, one.component.name] for one in explanation.top(layer, name, top)]
            if own:
                parts.append(f'<h3>{text_of(layer)}</h3><div class="components">{"".join(own)}</div>')
        nothing = "<p>The prediction contains no voxel of this class, or nothing else: no map can separate it.</p>"
        lead = note(f"On {text_of(shown.caption)}, in the slices with most of the class.")
        yield f"class-{place}", f"Components for {name}", lead + "".join(parts) if parts else nothing


def _figure(caption: str, cuts: list[Cut], pictures: list[np.ndarray], side: int, alt: str, component: str = "") -> str:
    """Pictures in all planes that open the viewer, below a caption, which is HTML; ``alt`` describes them."""
    images, largest = [], max(max(cut.extent_mm) for cut in cuts)
    for cut, picture in zip(cuts, pictures, strict=True):
        fill = FILL if picture.ndim == 2 else 0  # colours of a map have a meaning
        own_side = max(round(side * max(cut.extent_mm) / largest), 1)  # all planes on the same scale
        jpeg = draw(picture, cut.masks, own_side, 1, cut.known_plane, cut.position, fill)
        described = text_of(": ".join(filter(None, (alt, cut.name))))
        style = f"flex-grow:{cut.extent_mm[1]:.4g}"
        images.append(f'<img src="{data_uri(jpeg)}" alt="{described}" style="{style}">')
    shown = "".join(images)
    chosen = f' data-map="{component}"' if component else ""
    button = f'<button class="picture" data-view="0"{chosen}>{shown}</button>'
    return f'<figure class="component"><figcaption>{caption}</figcaption>{button}</figure>'


def _bar(one: Assessment) -> str:
    """The colours of a map with their range."""
    stops = ", ".join(f"rgb({','.join(map(str, COLOURS[at]))})" for at in (0, 64, 128, 192, 255))
    colours = f"background:linear-gradient(90deg,{stops})"
    return f'<span class="bar">0 <i style="{colours}"></i> {short(one.largest)} feature norm</span>'


def _summary(explanation: Explanation) -> str:
    grid = explanation.geometry.grid
    volumes = ", ".join(
        f"{text_of(name)} {short(np.isin(explanation.prediction, values).sum() * grid.voxel_mm3 / 1000)} ml"
        for name, values in explanation.classes.items()
    )
    size = " × ".join(str(n) for n in grid.size)
    spacing = lengths(grid.spacing)
    return (
        f"{size} voxels of {spacing} mm; {len(explanation.assessments)} components in "
        f"{text_of(', '.join(explanation.layers))}; predicted: {volumes}"
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


def _ranking(explanation: Explanation, stored: Sequence[Assessment]) -> str:
    """All components, the strongest first; those with a stored map open it."""
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

    rows, maps = [], {one.component.name for one in stored}
    for one in sorted(explanation.assessments, key=best, reverse=True):
        name = one.component.name
        opened = f'<td><button class="open" data-view="0" data-map="{name}">{name}</button></td>'
        cells = [opened if name in maps else cell(name)]
        cells += [number(share, f"{share:.2%}", undefined="") for share in (one.energy_share, one.head_share)]
        for region in explanation.classes:
            cells += _cells(one, region, tested, with_truth)
        view = f' data-view="0" data-map="{name}"' if name in maps else ""
        rows.append(f"<tr{view}>{''.join(cells)}</tr>")
    lead = "Click a component that is shown above to open its map, a column head to sort. "
    return note(lead + csv_button("components")) + table(heads, rows, sortable=True)


def _cells(one: Assessment, name: str, tested: bool, with_truth: bool) -> list[str]:
    """A component's cells for one class."""
    cells = []
    for separations in (one.predicted, one.true):
        if separations is not None:
            found = separations[name]
            cells += [number(value, undefined=_NOT_SEPARABLE) for value in (found.auc, found.correlation)]
    if tested:
        change = None if one.deletion is None else one.deletion[name]
        formats = {"dice_with_prediction": "", "volume_change_ml": "+.3g"}
        if with_truth:
            formats["dice_change"] = "+.3f"
        for value, form in ((getattr(change, key, None), form) for key, form in formats.items()):
            shown = format(value, form) if form and value is not None else None
            cells.append(number(value, shown, undefined=_NOT_TESTED if change is None else _EMPTY))
    return cells
