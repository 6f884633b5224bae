"""Sections of the page: agreement of volumes, and lesions by their size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from factorizer_nnunet.pages.markup import short, text_of
from factorizer_nnunet.report.charts.agreement import agreement, agreement_svg
from factorizer_nnunet.report.charts.detection import detection_svg
from factorizer_nnunet.report.study import Group, Scored


def volumes_section(group: Group, case_numbers: Mapping[str, int]) -> str:
    """A Bland–Altman plot for each region and model, those of a region in one row; "" without volumes."""
    rows = [_volumes_of(group, region, case_numbers) for region in group.regions]
    figures = "".join(rows) if len(group.scored) == 1 else '</div><div class="charts">'.join(filter(None, rows))
    if not figures:
        return ""
    return (
        '<p class="soft">Bland–Altman plots: mean difference and limits of agreement (mean ± 1.96 standard '
        f'deviations); above 0 the prediction is too large.</p><div class="charts">{figures}</div>'
    )


def _volumes_of(group: Group, region: str, case_numbers: Mapping[str, int]) -> str:
    measured: dict[Scored, tuple[np.ndarray, np.ndarray, list[int]]] = {}
    for scored in group.scored:
        keys = ("volume_reference", "volume_prediction")
        reference, prediction = (group.values(scored, region, scored.scores.metric(key)) for key in keys)
        known = np.isfinite(reference) & np.isfinite(prediction)
        if known.sum() > 1:  # one has no spread
            numbers = [case_numbers[group.cases[place]] for place in np.flatnonzero(known)]
            measured[scored] = (reference[known], prediction[known], numbers)
    if not measured:
        return ""
    pairs = [(reference, prediction) for reference, prediction, _ in measured.values()]
    found = [agreement(*pair) for pair in pairs]
    changes = [*(r for one in found for r in (one.low, one.high)), *(c for r, p in pairs for c in p - r)]
    middles = np.concatenate([(reference + prediction) / 2 for reference, prediction in pairs])
    limits, widest = ((float(np.min(values)), float(np.max(values))) for values in (changes, middles))
    figures = []
    for scored, (reference, prediction, numbers) in measured.items():
        svg = agreement_svg(scored.title, region, scored.place, reference, prediction, numbers, limits, widest)
        name = f" {text_of(scored.title)}" if len(group.scored) > 1 else ""
        figures.append(f"<figure><figcaption><b>{text_of(region)}</b>{name}</figcaption>{svg}</figure>")
    return "".join(figures)


def lesions_section(group: Group, case_numbers: Mapping[str, int]) -> str:
    """Sensitivity against lesion size, a figure for each region that has lesions."""
    shared = set(group.cases)
    figures = []
    for region in group.regions:
        models = {
            scored.title: (
                scored.place,
                [
                    one
                    for one in scored.scores.lesions
                    if one.region == region and one.case in shared and one.volume_ml > 0
                ],
            )
            for scored in group.scored
        }
        models = {title: value for title, value in models.items() if value[1]}
        if not models:
            continue
        found = ", ".join(
            f"{text_of(title)} {sum(one.detected for one in lesions)} of {len(lesions)}"
            if len(group.scored) > 1
            else f"{sum(one.detected for one in lesions)} of {len(lesions)} detected, median "
            f"{short(float(np.median([one.volume_ml for one in lesions])))} ml"
            for title, (_, lesions) in models.items()
        )
        svg = detection_svg(region, models, case_numbers)
        figures.append(
            f'<figure><figcaption><b>{text_of(region)}</b> <span class="soft">{found}</span></figcaption>{svg}</figure>'
        )
    if not figures:
        return ""
    return (
        '<p class="soft">Share of the reference\'s lesions (connected components) that were detected, in bins of '
        "equally many lesions, with Wilson's 95 % interval. Ticks below are the lesions, long ones missed.</p>"
        f'<div class="charts">{"".join(figures)}</div>'
    )
