"""The whole page: overview, what was trained, and for each group of results on the same cases its sections."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from factorizer_nnunet.pages.markup import document, text_of
from factorizer_nnunet.pages.style import SCRIPT, STYLE
from factorizer_nnunet.report.charts.axes import model_class
from factorizer_nnunet.report.gallery import choose_cases, gallery
from factorizer_nnunet.report.results import Result
from factorizer_nnunet.report.sections_methods import methods_section
from factorizer_nnunet.report.sections_models import (
    compare,
    comparison_section,
    verdicts,
)
from factorizer_nnunet.report.sections_scores import case_means, cases_section, headline, scores_section, strips_section
from factorizer_nnunet.report.sections_training import curves_section, trained_section
from factorizer_nnunet.report.sections_volumes import lesions_section, volumes_section
from factorizer_nnunet.report.study import Group
from factorizer_nnunet.report.style import REPORT_SCRIPT, REPORT_STYLE


def html_page(results: Sequence[Result], groups: Sequence[Group], channel: int = 0) -> str:
    """Return the whole page.

    Args:
        results: all of them, in the order of their colours.
        groups: the same, scored and sorted by their cases.
        channel: of the images in the gallery, counted from 0.

    Raises:
        UserError: images that cannot be drawn.
    """
    names = sorted({case for group in groups for case in group.cases})
    case_numbers = {name: number for number, name in enumerate(names)}
    sections: list[tuple[str, str, str]] = []  # anchor, title, HTML
    comparisons = [compare(group) for group in groups]
    parts = []
    for group, compared in zip(groups, comparisons, strict=True):
        fewer = f"{len(group.cases)} of {group.num_all} cases are compared, those that all results have."
        warning = f'<p class="warning"><b>Not complete.</b> {fewer}</p>' if len(group.cases) < group.num_all else ""
        parts.append(f"<h3>{text_of(group.title)}</h3>{warning}{headline(group)}")
        if compared:
            parts.append(f'<div class="verdicts">{verdicts(group, compared)}</div>')
    sections.append(("overview", "Overview", "".join(parts)))
    sections.append(("models", "Models", trained_section(results)))
    sections.append(("curves", "Training", curves_section(results)))
    for place, (group, compared) in enumerate(zip(groups, comparisons, strict=True)):
        after = f": {group.title}" if len(groups) > 1 else ""
        chosen = choose_cases(np.stack([case_means(group, scored, "dice") for scored in group.scored]), group.cases)
        own = (
            ("scores", "Scores", scores_section(group)),
            ("every-case", "Every case", strips_section(group, case_numbers)),
            ("comparison", "Comparison", comparison_section(group, compared, case_numbers)),
            ("volumes", "Volumes", volumes_section(group, case_numbers)),
            ("lesions", "Lesion size", lesions_section(group, case_numbers)),
            ("gallery", "Gallery", _gallery_lead(group, channel) + gallery(group, chosen, case_numbers, channel)),
            ("table", "All cases", cases_section(group, case_numbers, {one.case for one in chosen})),
        )
        number = "" if place == 0 else f"-{place + 1}"
        sections += [(f"{anchor}{number}", f"{title}{after}", content) for anchor, title, content in own]
    sections.append(("methods", "Methods", methods_section(groups)))
    return _document(results, [section for section in sections if section[2]], names)


def _document(results: Sequence[Result], sections: Sequence[tuple[str, str, str]], names: Sequence[str]) -> str:
    datasets = ", ".join(dict.fromkeys(result.dataset for result in results if result.dataset)) or "Segmentation"
    models = "".join(
        f'<li><i class="key {model_class(place)}"></i>{text_of(result.title)}</li>'
        for place, result in enumerate(results)
    )
    warnings = "".join(
        f'<p class="warning"><b>Not complete.</b> {text_of(warning)}</p>'
        for result in results
        for warning in result.warnings
    )
    links = "".join(f'<a href="#{anchor}">{text_of(title)}</a>' for anchor, title, _ in sections)
    options = "".join(f'<option value="{text_of(name)}"></option>' for name in names)
    find = (
        '<label>find a case <input id="find" list="names" autocomplete="off"></label>'
        f'<datalist id="names">{options}</datalist>'
    )
    body = "".join(
        f'<section><h2 id="{anchor}">{text_of(title)}</h2>{content}</section>' for anchor, title, content in sections
    )
    listed = json.dumps(list(names)).replace("</", "<\\/")
    header = f'<header><h1>{text_of(datasets)}</h1><ul class="models">{models}</ul>{warnings}</header>'
    return document(
        f"{datasets}: report",
        STYLE + REPORT_STYLE,
        SCRIPT + REPORT_SCRIPT,
        f'{header}<nav>{links}{find}</nav><main>{body}</main><div id="tip" role="status"></div>'
        f'<div id="kept" role="status"></div><script type="application/json" id="cases">{listed}</script>',
    )


def _gallery_lead(group: Group, channel: int) -> str:
    first = group.scored[0].result
    channels = first.dataset_json.get("channel_names", first.dataset_json.get("modality", {}))
    name = channels.get(str(channel), f"channel {channel}") if isinstance(channels, Mapping) else f"channel {channel}"
    pictured = all(case.images for case in first.cases)
    images = f"Image: {name}." if pictured else "Images were not found for all cases: set nnUNet_raw or give --images."
    return (
        f'<p class="soft">{text_of(images)} Cases by their mean Dice over regions'
        f"{' and models' if len(group.scored) > 1 else ''}. Axial, coronal and sagittal slices where reference and "
        "prediction are largest, with outlines of the regions; the patient's left is on the right.</p>"
    )
