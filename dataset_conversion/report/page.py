"""The facts of a conversion as one HTML page that needs nothing else: no network, no further file."""

from __future__ import annotations

import math
import statistics

from factorizer_nnunet.dataset_conversion.report.contact_sheet import Pictures
from factorizer_nnunet.dataset_conversion.report.lookup import Facts, labelled, registrations, row_anchors
from factorizer_nnunet.dataset_conversion.report.outliers import CUT, MIN_CASES
from factorizer_nnunet.dataset_conversion.report.sections import (
    data_set_section,
    folds_section,
    registrations_section,
    table_section,
    volumes_section,
)
from factorizer_nnunet.pages.markup import breakable, document, number, short, table, text_of
from factorizer_nnunet.pages.pictures import COLOURS, data_uri
from factorizer_nnunet.pages.style import SCRIPT, STYLE

_TILES = ((10, 220), (60, 150), (300, 110), (math.inf, 84))  # up to so many cases, pictures of so many pixels


def html_page(facts: Facts, pictures: Pictures) -> str:
    """Return the whole page.

    Args:
        facts: of the conversion, as report.report_facts gives them.
        pictures: of its cases and registrations; cases without are named all the same.
    """
    sections = {
        "Left out": _left_out(facts),
        "Cases": _sheet(facts, pictures),
        "Far from the rest": _outliers(facts),
        "Volumes": volumes_section(facts),
        "Folds": folds_section(facts),
        "Registrations": registrations_section(facts, pictures),
        "Table": table_section(facts),
        "Data set": data_set_section(facts),
    }
    shown = {title: content for title, content in sections.items() if content}
    links = "".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in shown)
    body = "".join(f'<section><h2 id="{_anchor(title)}">{title}</h2>{text}</section>' for title, text in shown.items())
    name, source = facts["dataset"], facts["title"]
    header = (
        f'<header><h1>{text_of(name)}</h1><p class="soft">converted from {text_of(source)}</p>{_numbers(facts)}'
        f"{_warnings(facts)}<nav>{links}</nav></header>"
    )
    return document(f"{name}: conversion of {source}", STYLE, SCRIPT, f"{header}\n<main>{body}</main>")


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _numbers(facts: Facts) -> str:
    counts = facts["counts"]
    channels = facts["channels"]
    items = [(counts["training"], "labelled cases", False), (counts["unlabelled"], "without label", False)]
    items += [(counts["patients"], "patients", False), (len(channels), f"channels: {', '.join(channels)}", False)]
    volumes = [case["label"]["volume"]["ml"] for case in labelled(facts)]
    if volumes:
        items.append((f"{short(statistics.median(volumes))} ml", "median volume of labels", False))
    empty = sum(volume == 0 for volume in volumes)
    items += [(empty, "empty labels", False)] if empty else []
    items.append((counts["left_out"], "cases left out", bool(facts["left_out"])))
    if facts["outliers_sought"]:
        items.append((counts["outliers"], "cases far from the rest", False))
    registered = registrations(facts)
    if registered:
        failed = sum(not one["ok"] for _, one in registered)
        items.append((f"{failed} of {len(registered)}", "registrations failed", failed > 0))
    alarm_class = ' class="alarm"'
    cells = "".join(
        f"<li{alarm_class if alarm else ''}><b>{text_of(shown)}</b>{text_of(what)}</li>" for shown, what, alarm in items
    )
    return f'<ul class="numbers">{cells}</ul>'


def _warnings(facts: Facts) -> str:
    return "".join(f'<p class="warning"><b>Note.</b> {text_of(text)}</p>' for text in facts["warnings"])


def _left_out(facts: Facts) -> str:
    rows = [
        f'<tr><td>{text_of(one["case"])}</td><td class="words">{text_of(one["text"])}</td>'
        f'<td class="path">{text_of(one["path"])}</td></tr>'
        for one in facts["left_out"]
    ]
    return table(["case", "problem", "file"], rows, sortable=True) if rows else ""


def _legend(facts: Facts) -> str:
    items = [
        f'<span><i style="background:{colour}"></i>{text_of(region)}</span>'
        for region, colour in zip(facts["regions"], COLOURS, strict=False)
    ]
    if facts["counts"]["outliers"]:
        items.append('<span><i class="frame"></i>far from the rest of the set</span>')
    return f'<div class="legend">{"".join(items)}</div>'


def _sheet(facts: Facts, pictures: Pictures) -> str:
    tiles = []
    for name, anchor in row_anchors(facts).items():
        case = facts["cases"][name]
        about = [name, *(one["text"] for one in case["outliers"]), *case["notes"]]
        mark = "" if case["label"] is not None else ' <i class="soft">no label</i>'
        caption = breakable(name)
        jpeg = pictures.cases.get(name)
        shown = "" if jpeg is None else f'<img src="{data_uri(jpeg)}" alt="" decoding="async">'
        odd = ' class="odd"' if case["outliers"] else ""
        title = text_of("\n".join(about))
        tiles.append(f'<a href="#{anchor}"{odd} title="{title}">{shown}<span>{caption}{mark}</span></a>')
    width = next(width for most, width in _TILES if len(tiles) <= most)
    lead = "One axial slice of each case, where the label is largest, with outlines of its regions."
    return (
        f'<p class="soft">{lead} A picture leads to its row in the table.</p>{_legend(facts)}'
        f'<div class="sheet" style="--tile:{width}px">{"".join(tiles)}</div>'
    )


def _outliers(facts: Facts) -> str:
    if not facts["outliers_sought"]:
        return f"<p>Not looked for: fewer than {MIN_CASES} cases tell little about what is usual.</p>"
    rows = [
        f'<tr><td><a href="#{anchor}">{text_of(name)}</a></td><td class="words">{text_of(one["text"])}</td>'
        f"{number(abs(one['z']), format(one['z'], '+.1f'))}</tr>"
        for name, anchor in row_anchors(facts).items()
        for one in facts["cases"][name]["outliers"]
    ]
    rule = (
        f"Volume, intensities, size or spacing more than {CUT:g} robust standard deviations from the median. "
        "That may be a mistake or just a rare case: look."
    )
    return f'<p class="soft">{rule}</p>' + (table(["case", "what", "z"], rows, True) if rows else "<p>None.</p>")
