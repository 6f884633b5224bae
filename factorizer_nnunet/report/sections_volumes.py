"""Sections of the page: agreement of volumes, and detection of lesions by their size."""

from __future__ import annotations

from itertools import chain

import numpy as np

from factorizer_nnunet.core.wording import short
from factorizer_nnunet.evaluation.scores import Lesion
from factorizer_nnunet.pages.markup import charts, figure, text_of
from factorizer_nnunet.report.charts.agreement import Volumes, agreement, agreement_svg
from factorizer_nnunet.report.charts.detection import detection_svg
from factorizer_nnunet.report.study import Group


def volumes_section(group: Group) -> str:
    """A Bland–Altman plot for each region and model, those of a region in one row; "" without volumes."""
    rows = [figures for region in group.regions if (figures := _volumes_of(group, region))]
    if len(group.scored) == 1:
        rows = [list(chain(*rows))]
    lead = (
        "Bland–Altman plots: mean difference and limits of agreement (mean ± 1.96 standard deviations); above 0, the "
        "prediction is too large."
    )
    return "".join(charts(figures, lead if row == 0 else "") for row, figures in enumerate(rows))


def _volumes_of(group: Group, region: str) -> list[str]:
    measured = []
    for scored in group.scored:
        reference, prediction = (group.values(scored, region, f"volume_{of}") for of in ("reference", "prediction"))
        known = np.isfinite(reference) & np.isfinite(prediction)
        if known.sum() > 1:  # a single one has no standard deviation
            numbers = [group.numbers[place] for place in np.flatnonzero(known)]
            measured.append((scored, Volumes(reference[known], prediction[known], numbers)))
    if not measured:
        return []
    found = [agreement(volumes) for _, volumes in measured]
    differences = np.concatenate([[one.low, one.high] for one in found] + [v.differences for _, v in measured])
    means = np.concatenate([volumes.means for _, volumes in measured])
    limits, widest = ((float(values.min()), float(values.max())) for values in (differences, means))
    return [
        figure(
            f"<b>{text_of(region)}</b>" + (f" {text_of(scored.title)}" if len(group.scored) > 1 else ""),
            agreement_svg(scored.title, region, scored.place, volumes, limits, widest),
        )
        for scored, volumes in measured
    ]


def lesions_section(group: Group) -> str:
    """Sensitivity by lesion size, a figure for each region that has lesions."""
    figures, shared = [], set(group.cases)
    for region in group.regions:
        models: dict[str, tuple[int, list[Lesion]]] = {}
        for scored in group.scored:
            lesions = [
                lesion
                for lesion in scored.scores.lesions
                if lesion.region == region and lesion.case in shared and lesion.volume_ml > 0
            ]
            if lesions:
                models[scored.title] = (scored.place, lesions)
        if models:
            caption = f'<b>{text_of(region)}</b> <span class="soft">{_detected(group, models)}</span>'
            figures.append(figure(caption, detection_svg(region, models, group.number_of)))
    lead = (
        "Fraction of the reference lesions (connected components) that were detected, in bins with equal numbers of "
        "lesions, with Wilson's 95 % interval. Each tick below is a lesion; long ticks are missed lesions."
    )
    return charts(figures, lead)


def _detected(group: Group, models: dict[str, tuple[int, list[Lesion]]]) -> str:
    found = []
    for title, (_, lesions) in models.items():
        count = f"{sum(lesion.detected for lesion in lesions)} of {len(lesions)}"
        median = float(np.median([lesion.volume_ml for lesion in lesions]))
        several = len(group.scored) > 1
        found.append(f"{text_of(title)} {count}" if several else f"{count} detected, median {short(median)} ml")
    return ", ".join(found)
