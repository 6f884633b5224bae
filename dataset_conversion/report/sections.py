"""Sections of the report's page: volumes, folds, registrations, the table of all cases, and the data set."""

from __future__ import annotations

import statistics

from factorizer_nnunet.dataset_conversion.report.contact_sheet import Pictures
from factorizer_nnunet.dataset_conversion.report.facts import Facts, labelled, registrations, row_anchors
from factorizer_nnunet.dataset_conversion.report.histogram import decades_of, histogram_svg
from factorizer_nnunet.pages.markup import cell, charts, csv_button, figure, note, number, short, table, text_of
from factorizer_nnunet.pages.palette import COLOURS
from factorizer_nnunet.pages.pictures import data_uri

_TREATMENTS = {
    "compress": "compressed",
    "split": "taken from a series",
    "rewrite": "header or voxels repaired",
    "resample": "resampled to the case's grid",
    "absent": "absent",
}


def volumes_section(facts: Facts) -> str:
    """One histogram per region, with a common axis; "" without labels."""
    labels = [case["label"] for case in labelled(facts)]
    if not labels:
        return ""
    volumes = {region: [label["regions"][region]["ml"] for label in labels] for region in facts["regions"]}
    decades = decades_of([volume for values in volumes.values() for volume in values])
    figures = []
    for place, (region, values) in enumerate(volumes.items()):
        filled = [value for value in values if value > 0]
        words = f"median of cases with this region {short(statistics.median(filled))} ml" if filled else "in no case"
        if filled and len(filled) < len(values):
            words += f"; absent in {len(values) - len(filled)} of {len(values)} cases"
        caption = f'<b>{text_of(region)}</b> <span class="soft">{words}</span>'
        figures.append(figure(caption, histogram_svg(values, decades, COLOURS[place % len(COLOURS)])))
    return charts(figures, "Number of cases by volume in ml.")


def folds_section(facts: Facts) -> str:
    """The validation part of each fold, or why there are no folds."""
    folds = facts["folds"]
    if not folds:
        return "<p>None: fewer than five patients with labels.</p>"
    strata = sorted({stratum for fold in folds for stratum in fold["strata"]} - {""})
    if strata and any("" in fold["strata"] for fold in folds):
        strata.insert(0, "")
    rows = []
    for place, fold in enumerate(folds):
        spread = fold["middle_80_percent_ml"]
        counts = [fold["cases"], fold["patients"], *(fold["strata"].get(stratum, 0) for stratum in strata)]
        cells = [number(count, str(count), undefined="") for count in counts]
        middle = "" if spread is None else f"{short(spread[0])} to {short(spread[1])}"
        cells[2:2] = [number(fold["median_ml"], undefined="the fold has no cases"), cell(middle)]
        rows.append(f"<tr>{cell(place)}{''.join(cells)}</tr>")
    heads = ["fold", "cases", "patients", "median volume, ml", "middle 80 %, ml"]
    heads += [name or "unknown" for name in strata]
    lead = "Validation cases of the five folds in splits_final.json; all cases of a patient are in one fold."
    return f"{note(lead)}{table(heads, rows)}"


def registrations_section(facts: Facts, pictures: Pictures) -> str:
    """Numbers and pictures of all registrations, failed ones first; "" if there are none."""
    registered = registrations(facts)
    if not registered:
        return ""
    failed = ' class="odd"'
    rows = [
        f"<tr{'' if one['ok'] else failed}>{cell(case)}{cell(one['channel'])}<td>{_state(one)}</td>"
        f"{_metric(one['metric_before'])}{_metric(one['metric_after'])}"
        f"{_metric(one['translation_mm'], 1)}{_metric(one['rotation_deg'], 1)}{cell(one['text'], 'words')}</tr>"
        for case, one in registered
    ]
    heads = ["case", "channel", "state", "metric before", "metric after", "shift, mm", "rotation, °", "description"]
    failed_pairs, good_pairs = (
        "".join(_pair(facts, case, one, pictures) for case, one in registered if one["ok"] is ok)
        for ok in (False, True)
    )
    lead = (
        "The metric is negative mutual information in nats: lower is better. Each picture shows one slice of three "
        "images: the channel that defines the grid, the other channel aligned by its header, and the same channel as "
        "written. All have the outline of the first image."
    )
    return (
        f'{note(lead)}{table(heads, rows, True)}<div class="pairs">{failed_pairs}</div>'
        "<details open><summary>Pictures of successful registrations</summary>"
        f'<div class="pairs">{good_pairs}</div></details>'
    )


def _state(registration: Facts) -> str:
    return "good" if registration["ok"] else '<span class="bad">failed</span>'


def _metric(value: float | None, digits: int = 3) -> str:
    shown = None if value is None else f"{value:.{digits}f}"
    return number(value, shown, undefined="it cannot be computed: the images do not overlap")


def _pair(facts: Facts, case: str, registration: Facts, pictures: Pictures) -> str:
    images = pictures.registrations.get((case, registration["channel"]))
    if images is None:
        return ""
    shown = "".join(
        f'<span><img src="{data_uri(jpeg)}" alt="{text_of(f"{case}, {what}, {caption}")}" decoding="async">'
        f"{text_of(f'{what}: {caption}')}</span>"
        for what, (jpeg, caption) in zip(("grid", "by header", "written"), images, strict=True)
    )
    place = list(facts["cases"]).index(case)
    odd = "" if registration["ok"] else " odd"
    words = f"<b>{text_of(case)}</b> {text_of(registration['channel'])}: {_state(registration)}, "
    return (
        f'<figure class="pair{odd}"><button class="picture" data-view="{place}">{shown}</button>'
        f"<figcaption>{words}{text_of(registration['text'])}</figcaption></figure>"
    )


def table_section(facts: Facts) -> str:
    """One row per case."""
    cases = facts["cases"]
    optional = [k for k in ("patient", "stratum") if any(case[k] not in ("", name) for name, case in cases.items())]
    heads = ["case", *optional, "fold", "size", "spacing, mm", *(f"{region}, ml" for region in facts["regions"])]
    heads += ["remarks", *(f"{channel} {end}" for channel in facts["channels"] for end in ("low", "high"))]
    rows = []
    for place, (name, anchor) in enumerate(row_anchors(facts).items()):
        case = cases[name]
        grid, label = case["images"][case["grid_channel"]], case["label"]
        opened = (
            f'<td data-value="{text_of(name)}"><button class="open" data-view="{place}">{text_of(name)}</button></td>'
        )
        fold = number(case["fold"], str(case["fold"]), undefined="in no fold: without a label, or there are no folds")
        cells = [opened, *(cell(case[key]) for key in optional), fold]
        cells += [cell(" × ".join(map(str, grid["size"]))), cell(" × ".join(short(mm) for mm in grid["spacing_mm"]))]
        cells += [
            number(None if label is None else label["regions"][region]["ml"], undefined="the case has no label")
            for region in facts["regions"]
        ]
        cells.append(f'<td class="words">{"<br>".join(_remarks(case))}</td>')
        for image in case["images"]:
            absent = image["treatment"] == "absent"
            for end in image["intensity_range"]:
                why = "the case lacks this channel" if absent else "no voxel is finite"
                cells.append(number(None if absent else end, short(end, 4), undefined=why))
        odd = ' class="odd"' if case["outliers"] else ""
        rows.append(f'<tr id="{anchor}" data-view="{place}"{odd}>{"".join(cells)}</tr>')
    lead = (
        "Low and high are the 0.5 and 99.5 percentile of the non-zero voxels. Click a case to open it, a column head "
        "to sort. "
    )
    return f"{note(lead + csv_button('cases'))}{table(heads, rows, sortable=True)}"


def _remarks(case: Facts) -> list[str]:
    """Remarks on a case, as HTML."""
    remarks = [f'<span class="bad">{text_of(one["text"])}</span>' for one in case["outliers"]]
    remarks += ["no label"] if case["label"] is None else []
    treated: dict[str, list[str]] = {}
    for image in case["images"]:
        if image["treatment"] in _TREATMENTS:
            treated.setdefault(_TREATMENTS[image["treatment"]], []).append(image["channel"])
    remarks += [f"{text_of(', '.join(channels))}: {treatment}" for treatment, channels in treated.items()]
    return remarks + [text_of(note) for note in case["notes"]]


def data_set_section(facts: Facts) -> str:
    """Sources, label values, options and versions."""
    raw_of: dict[int, list[str]] = {}
    for raw, written in facts["label_map"].items():
        raw_of.setdefault(written, []).append(raw)
    options = facts["options"]
    grids = "registered and resampled" if options["register"] else "resampled by their headers"
    items = {
        "release": [f"{facts['title']} ({facts['release']})"],
        "reference": _known(facts["reference"]),
        "licence": _known(facts["licence"]),
        "sources": facts["sources"],
        "channels": [f"{place:04d}: {channel}" for place, channel in enumerate(facts["channels"])],
        "label values": ["; ".join(f"{' and '.join(raws)} as {written}" for written, raws in sorted(raw_of.items()))],
        "regions": [f"{region}: {' '.join(map(str, values))}" for region, values in facts["regions"].items()],
        "replaced first": [
            f"{case or 'all cases'}: {', '.join(f'{old} by {new}' for old, new in values.items())}"
            for case, values in options["remap"].items()
        ],
        "unchanged files": ["linked" if options["link"] else "copied"],
        "other grids": [grids] if registrations(facts) else [],
        "seed of the folds": [str(options["seed"])],
        "versions": [", ".join(f"{name} {version}" for name, version in facts["versions"].items())],
        "other notes": [": ".join(filter(None, (one["case"], one["path"], one["text"]))) for one in facts["notes"]],
    }
    entries = "".join(
        f"<dt>{name}</dt><dd>{'<br>'.join(map(text_of, texts))}</dd>" for name, texts in items.items() if texts
    )
    return f"<dl>{entries}</dl>{note('The source files of each case and all numbers are in conversion_report.json.')}"


def _known(text: str) -> list[str]:
    """As a line of a list; no line if it is empty."""
    return [text] if text else []
