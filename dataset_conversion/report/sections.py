"""Sections of the report's page: volumes, folds, registrations, the table of all cases, and the data set itself."""

from __future__ import annotations

import statistics

from factorizer_nnunet.dataset_conversion.report.contact_sheet import Pictures
from factorizer_nnunet.dataset_conversion.report.histogram import decades_of, histogram_svg
from factorizer_nnunet.dataset_conversion.report.lookup import Facts, labelled, registrations, row_anchors
from factorizer_nnunet.pages.markup import number, short, table, text_of
from factorizer_nnunet.pages.pictures import COLOURS, data_uri

_TREATMENTS = {
    "compress": "compressed",
    "split": "taken from a series",
    "rewrite": "header or voxels repaired",
    "resample": "resampled to the case's grid",
}


def volumes_section(facts: Facts) -> str:
    """A histogram for every region, over one axis; "" without labels."""
    labels = [case["label"] for case in labelled(facts)]
    if not labels:
        return ""
    volumes = {region: [label["regions"][region]["ml"] for label in labels] for region in facts["regions"]}
    decades = decades_of([volume for values in volumes.values() for volume in values])
    charts = []
    for place, (region, values) in enumerate(volumes.items()):
        colour = COLOURS[place % len(COLOURS)]
        filled = [value for value in values if value > 0]
        words = f"median {short(statistics.median(filled))} ml where there is any" if filled else "nowhere"
        empty = len(values) - len(filled)
        words += f"; not in {empty} of {len(values)} cases" if filled and empty else ""
        charts.append(
            f'<figure><figcaption><b>{text_of(region)}</b> <span class="soft">{words}</span></figcaption>'
            f"{histogram_svg(values, decades, colour)}</figure>"
        )
    return f'<p class="soft">Number of cases by volume in ml.</p><div class="charts">{"".join(charts)}</div>'


def folds_section(facts: Facts) -> str:
    """What is in the validation part of each fold; why there are none, if so."""
    folds = facts["folds"]
    if not folds:
        return "<p>None: fewer than five patients with labels.</p>"
    strata = sorted({stratum for fold in folds for stratum in fold["strata"]})
    strata = [] if strata == [""] else strata
    rows = []
    for place, fold in enumerate(folds):
        spread = fold["middle_80_percent_ml"]
        cells = [number(fold["cases"], str(fold["cases"])), number(fold["patients"], str(fold["patients"]))]
        cells += [
            number(fold["median_ml"]),
            f"<td>{'' if spread is None else f'{short(spread[0])} to {short(spread[1])}'}</td>",
        ]
        cells += [number(fold["strata"].get(stratum, 0), str(fold["strata"].get(stratum, 0))) for stratum in strata]
        rows.append(f"<tr><td>{place}</td>{''.join(cells)}</tr>")
    heads = [
        "fold",
        "cases",
        "patients",
        "median volume, ml",
        "middle 80 %, ml",
        *(name or "unknown" for name in strata),
    ]
    return (
        '<p class="soft">Validation cases of the five folds in splits_final.json; all cases of a patient are in one '
        f"fold.</p>{table(heads, rows)}"
    )


def registrations_section(facts: Facts, pictures: Pictures) -> str:
    """Numbers and pictures of all registrations, failed ones first; "" where there are none."""
    registered = registrations(facts)
    if not registered:
        return ""
    failed = ' class="odd"'
    rows = [
        f"<tr{'' if one['ok'] else failed}><td>{text_of(case)}</td><td>{text_of(one['channel'])}</td>"
        f"<td>{_state(one)}</td>{_metric(one['metric_before'])}{_metric(one['metric_after'])}"
        f"{_metric(one['translation_mm'], 1)}{_metric(one['rotation_deg'], 1)}"
        f'<td class="words">{text_of(one["text"])}</td></tr>'
        for case, one in registered
    ]
    heads = ["case", "channel", "state", "metric before", "metric after", "moved, mm", "turned, °", "in words"]
    failed_pairs, good_pairs = (
        "".join(_pair(case, one, pictures) for case, one in registered if one["ok"] is ok) for ok in (False, True)
    )
    return (
        '<p class="soft">The metric is negative mutual information in nats: lower is better. Pictures show one slice: '
        "the channel that gives the grid, the other one as its header puts it, and as it was written, all with the "
        f"outline of the first.</p>{table(heads, rows, True)}"
        f'<div class="pairs">{failed_pairs}</div>'
        f'<details open><summary>Pictures of the good ones</summary><div class="pairs">{good_pairs}</div></details>'
    )


def _state(registration: Facts) -> str:
    return "good" if registration["ok"] else '<span class="bad">failed</span>'


def _metric(value: float | None, digits: int = 3) -> str:
    return number(value, None if value is None else f"{value:.{digits}f}")


def _pair(case: str, registration: Facts, pictures: Pictures) -> str:
    images = pictures.registrations.get((case, registration["channel"]))
    if images is None:
        return ""
    shown = "".join(
        f'<span><img src="{data_uri(jpeg)}" alt="" decoding="async">{what}</span>'
        for what, jpeg in zip(("grid", "by header", "written"), images, strict=True)
    )
    odd = "" if registration["ok"] else " odd"
    words = f"<b>{text_of(case)}</b> {text_of(registration['channel'])}: {_state(registration)}, "
    return (
        f'<figure class="pair{odd}"><div>{shown}</div>'
        f"<figcaption>{words}{text_of(registration['text'])}</figcaption></figure>"
    )


def table_section(facts: Facts) -> str:
    """A row for every case."""
    cases = facts["cases"]
    with_patient = any(case["patient"] != name for name, case in cases.items())
    with_stratum = any(case["stratum"] for case in cases.values())
    heads = ["case", *(["patient"] if with_patient else []), *(["stratum"] if with_stratum else []), "fold"]
    heads += ["size", "spacing, mm", *(f"{region}, ml" for region in facts["regions"])]
    heads += ["remarks", *(f"{channel} intensities" for channel in facts["channels"])]
    rows = []
    for name, anchor in row_anchors(facts).items():
        case = cases[name]
        grid = case["images"][case["grid_channel"]]
        cells = [f"<td>{text_of(name)}</td>"]
        cells += [f"<td>{text_of(case['patient'])}</td>"] if with_patient else []
        cells += [f"<td>{text_of(case['stratum'])}</td>"] if with_stratum else []
        cells += [number(case["fold"], str(case["fold"]))]
        cells += [f"<td>{' × '.join(map(str, grid['size']))}</td>"]
        cells += [f"<td>{' × '.join(short(mm) for mm in grid['spacing_mm'])}</td>"]
        label = case["label"]
        cells += [number(None if label is None else label["regions"][region]["ml"]) for region in facts["regions"]]
        cells.append(f'<td class="words">{"<br>".join(_remarks(case))}</td>')
        cells += [_range(image["intensity_range"]) for image in case["images"]]
        odd = ' class="odd"' if case["outliers"] else ""
        rows.append(f'<tr id="{anchor}"{odd}>{"".join(cells)}</tr>')
    return (
        '<p class="soft">Intensities are the 0.5 and 99.5 percentile of what is not 0. Click a head to sort.</p>'
        f"{table(heads, rows, sortable=True)}"
    )


def _range(intensities: list[float]) -> str:
    low, high = intensities
    return number(high, f"{short(low, 4)} to {short(high, 4)}")


def _remarks(case: Facts) -> list[str]:
    """What is to be said of a case, as HTML."""
    remarks = [f'<span class="bad">{text_of(one["text"])}</span>' for one in case["outliers"]]
    remarks += ["no label"] if case["label"] is None else []
    treated: dict[str, list[str]] = {}
    for image in case["images"]:
        if image["treatment"] in _TREATMENTS:
            treated.setdefault(_TREATMENTS[image["treatment"]], []).append(image["channel"])
    remarks += [f"{text_of(', '.join(channels))}: {treatment}" for treatment, channels in treated.items()]
    return remarks + [text_of(note) for note in case["notes"]]


def data_set_section(facts: Facts) -> str:
    """Where it comes from, how labels are written, what was asked for, and versions."""
    raw_of: dict[int, list[str]] = {}
    for raw, written in facts["label_map"].items():
        raw_of.setdefault(written, []).append(raw)
    labels = [f"{' and '.join(raws)} as {written}" for written, raws in sorted(raw_of.items())]
    regions = [f"{region}: {' '.join(map(str, values))}" for region, values in facts["regions"].items()]
    remaps = [
        f"{case or 'all cases'}: {', '.join(f'{old} taken as {new}' for old, new in values.items())}"
        for case, values in facts["options"]["remap"].items()
    ]
    options = facts["options"]
    grids = ["registered and resampled" if options["register"] else "resampled by their headers"]
    items = {
        "release": [f"{facts['title']} ({facts['release']})"],
        "reference": [facts["reference"]],
        "licence": [facts["licence"]],
        "sources": facts["sources"],
        "channels": [f"{place:04d}: {channel}" for place, channel in enumerate(facts["channels"])],
        "label values": ["; ".join(labels)],
        "regions": regions,
        "remapped before": remaps,
        "unchanged files": ["linked" if options["link"] else "copied"],
        "other grids": grids if registrations(facts) else [],
        "seed of the folds": [str(options["seed"])],
        "versions": [", ".join(f"{name} {version}" for name, version in facts["versions"].items())],
        "further notes": [
            ": ".join(text for text in (one["case"], one["path"], one["text"]) if text) for one in facts["notes"]
        ],
    }
    return (
        "<dl>"
        + "".join(
            f"<dt>{name}</dt><dd>{'<br>'.join(map(text_of, texts))}</dd>" for name, texts in items.items() if texts
        )
        + '</dl><p class="soft">The file of every case and all numbers are in conversion_report.json.</p>'
    )
