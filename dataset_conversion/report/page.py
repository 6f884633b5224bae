"""The facts of a conversion as one self-contained HTML page."""

from __future__ import annotations

import math
import statistics

from factorizer_nnunet.core.wording import today
from factorizer_nnunet.dataset_conversion.report.contact_sheet import Pictures
from factorizer_nnunet.dataset_conversion.report.facts import Facts, labelled, registrations, row_anchors
from factorizer_nnunet.dataset_conversion.report.outliers import CUT, MIN_CASES
from factorizer_nnunet.dataset_conversion.report.sections import (
    data_set_section,
    folds_section,
    registrations_section,
    table_section,
    volumes_section,
)
from factorizer_nnunet.pages.markup import (
    breakable,
    cell,
    document,
    legend,
    note,
    number,
    sections,
    short,
    table,
    text_of,
)
from factorizer_nnunet.pages.pictures import data_uri
from factorizer_nnunet.pages.style import SCRIPT, STYLE
from factorizer_nnunet.pages.viewer_script import VIEWER_SCRIPT
from factorizer_nnunet.pages.viewer_style import VIEWER_STYLE

_TILES = ((10, 220), (60, 150), (300, 110), (math.inf, 84))  # maximum number of cases, width of a picture in pixels


def html_page(facts: Facts, pictures: Pictures, viewer: str) -> str:
    """Return the page, with the viewer as HTML; cases without a picture are listed, too."""
    parts = {
        "Left out": _left_out(facts),
        "Outliers": _outliers(facts),
        "Cases": _sheet(facts, pictures),
        "Volumes": volumes_section(facts),
        "Folds": folds_section(facts),
        "Registrations": registrations_section(facts, pictures),
        "Table": table_section(facts),
        "Data set": data_set_section(facts),
    }
    links, body = sections((title.lower().replace(" ", "-"), title, content) for title, content in parts.items())
    name, source = facts["dataset"], facts["title"]
    warnings = "".join(f'<p class="warning"><b>Note.</b> {text_of(text)}</p>' for text in facts["warnings"])
    subtitle = note(f"Conversion of {text_of(source)}, {today()}")
    header = f"<header><h1>{text_of(name)}</h1>{subtitle}{_numbers(facts)}{warnings}<nav>{links}</nav></header>"
    title = f"{name}: conversion of {source}, {today()}"
    return document(title, STYLE + VIEWER_STYLE, SCRIPT + VIEWER_SCRIPT, f"{header}\n{body}{viewer}")


def _numbers(facts: Facts) -> str:
    counts, channels = facts["counts"], facts["channels"]
    items: list[tuple[object, str, bool]] = [  # value, description, whether it is alarming
        (counts["training"], "labelled cases", False),
        (counts["unlabelled"], "unlabelled cases", False),
        (counts["patients"], "patients", False),
        (len(channels), f"channels: {', '.join(channels)}", False),
    ]
    volumes = [case["label"]["volume"]["ml"] for case in labelled(facts)]
    if volumes:
        items.append((f"{short(statistics.median(volumes))} ml", "median label volume", False))
    if empty := sum(volume == 0 for volume in volumes):
        items.append((empty, "empty labels", False))
    if counts["incomplete"]:
        items.append((counts["incomplete"], "cases without all channels", False))
    items.append((counts["left_out"], "cases left out", bool(facts["left_out"])))
    if facts["outliers_sought"]:
        items.append((counts["outliers"], "outliers", False))
    if registered := registrations(facts):
        failed = sum(not one["ok"] for _, one in registered)
        items.append((f"{failed} of {len(registered)}", "registrations failed", failed > 0))
    alarm_class = ' class="alarm"'
    cells = "".join(
        f"<li{alarm_class if alarm else ''}><b>{text_of(shown)}</b>{text_of(what)}</li>" for shown, what, alarm in items
    )
    return f'<ul class="numbers">{cells}</ul>'


def _left_out(facts: Facts) -> str:
    rows = [
        f"<tr>{cell(one['case'])}{cell(one['text'], 'words')}{cell(one['path'], 'path')}</tr>"
        for one in facts["left_out"]
    ]
    return table(["case", "problem", "file"], rows, sortable=True) if rows else ""


def _sheet(facts: Facts, pictures: Pictures) -> str:
    frame = '<span><i class="frame"></i>outlier</span>' if facts["counts"]["outliers"] else ""
    tiles = []
    for place, (name, anchor) in enumerate(row_anchors(facts).items()):
        case = facts["cases"][name]
        caption = pictures.captions.get(name, "")
        lines = [name, *filter(None, [caption]), *(one["text"] for one in case["outliers"]), *case["notes"]]
        title = text_of("\n".join(lines))
        mark = "" if case["label"] is not None else ' <i class="soft">no label</i>'
        jpeg = pictures.cases.get(name)
        alt = text_of(", ".join(filter(None, (name, caption))))
        shown = "" if jpeg is None else f'<img src="{data_uri(jpeg)}" alt="{alt}" decoding="async">'
        odd = " odd" if case["outliers"] else ""
        tiles.append(
            f'<div class="tile{odd}" title="{title}"><button class="picture" data-view="{place}">{shown}</button>'
            f'<span><a href="#{anchor}">{breakable(name)}</a>{mark}<br><i class="soft">{text_of(caption)}</i></span>'
            "</div>"
        )
    width = next(width for most, width in _TILES if len(tiles) <= most)
    lead = (
        "The axial slice with the largest label area of each case, with outlines of its regions; R is the patient's "
        "right."
    )
    return (
        f"{note(f'{lead} Click a picture to open the case, its name to see its row in the table.')}"
        f"{legend(facts['regions'], frame)}"
        f'<div class="sheet" style="--tile:{width}px">{"".join(tiles)}</div>'
    )


def _outliers(facts: Facts) -> str:
    if not facts["outliers_sought"]:
        return f"<p>Not computed: fewer than {MIN_CASES} cases do not show what is usual.</p>"
    rows = [
        f'<tr data-view="{place}"><td><button class="open" data-view="{place}">{text_of(name)}</button></td>'
        f"{cell(one['text'], 'words')}{number(abs(one['z']), format(one['z'], '+.1f'), undefined='')}</tr>"
        for place, name in enumerate(facts["cases"])
        for one in facts["cases"][name]["outliers"]
    ]
    rule = (
        f"Cases whose volume, intensities, size or spacing differ from the median by more than {CUT:g} robust standard "
        "deviations. This may be a mistake or just a rare case: look at them."
    )
    return note(rule) + (table(["case", "feature", "z"], rows, True) if rows else "<p>None.</p>")
