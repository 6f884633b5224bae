"""The complete page: overview, models, and sections for each group of results on the same cases."""

from __future__ import annotations

from collections.abc import Sequence

from factorizer_nnunet.core.wording import today
from factorizer_nnunet.pages.markup import document, note, sections, text_of
from factorizer_nnunet.pages.style import SCRIPT, STYLE
from factorizer_nnunet.pages.viewer_script import VIEWER_SCRIPT
from factorizer_nnunet.pages.viewer_style import VIEWER_STYLE
from factorizer_nnunet.report.case_viewer import Display, case_viewer
from factorizer_nnunet.report.charts.axes import model_class
from factorizer_nnunet.report.gallery import choose_cases, gallery
from factorizer_nnunet.report.repeats import repeats_section
from factorizer_nnunet.report.results import Result
from factorizer_nnunet.report.sections_calibration import calibration_section
from factorizer_nnunet.report.sections_labels import labels_section
from factorizer_nnunet.report.sections_methods import methods_section
from factorizer_nnunet.report.sections_models import Comparison, compare, comparison_section, verdicts
from factorizer_nnunet.report.sections_scores import (
    cases_section,
    headline,
    mean_dice,
    outlying,
    scores_section,
    strips_section,
)
from factorizer_nnunet.report.sections_subsets import subsets_section
from factorizer_nnunet.report.sections_training import curves_section, trained_section
from factorizer_nnunet.report.sections_volumes import lesions_section, volumes_section
from factorizer_nnunet.report.study import Group
from factorizer_nnunet.report.style import REPORT_SCRIPT, REPORT_STYLE

_Section = tuple[str, str, str]  # anchor, title, HTML


def html_page(results: Sequence[Result], groups: Sequence[Group], display: Display) -> str:
    """Return the complete page.

    Args:
        results: in the order of their colours.
        groups: the same results with their scores, grouped by cases.
        display: how images are shown, and how many cases can be opened.

    Raises:
        UserError: images that cannot be drawn.
    """
    comparisons = [compare(group) for group in groups]
    overview = "".join(_overview(group, compared) for group, compared in zip(groups, comparisons, strict=True))
    parts: list[_Section] = [
        ("overview", "Overview", overview),
        ("models", "Models", trained_section(results)),
        ("curves", "Training", curves_section(results)),
    ]
    for place, (group, compared) in enumerate(zip(groups, comparisons, strict=True)):
        anchor_end = "" if place == 0 else f"-{place + 1}"
        title_end = f": {group.title}" if len(groups) > 1 else ""
        for anchor, title, content in _group_sections(group, compared, display):
            parts.append((anchor + anchor_end, title + title_end, content))
    parts.append(("methods", "Methods", methods_section(groups)))
    return _document(results, parts, list(groups[0].number_of), case_viewer(groups, display))


def _overview(group: Group, comparisons: list[Comparison]) -> str:
    warning = ""
    if len(group.cases) < group.num_all:
        warning = _warning(f"Only the {len(group.cases)} of {group.num_all} cases that all results have are compared.")
    found = f'<div class="verdicts">{verdicts(group, comparisons)}</div>' if comparisons else ""
    return f"<h3>{text_of(group.title)}</h3>{warning}{outlying(group)}{headline(group)}{found}"


def _group_sections(group: Group, comparisons: list[Comparison], display: Display) -> tuple[_Section, ...]:
    chosen = choose_cases(mean_dice(group), group.cases)
    return (
        ("scores", "Scores", scores_section(group)),
        ("every-case", "Every case", strips_section(group)),
        ("comparison", "Comparison", comparison_section(group, comparisons)),
        ("repeats", "Repeated trainings", repeats_section(group)),
        ("volumes", "Volumes", volumes_section(group)),
        ("lesions", "Lesion size", lesions_section(group)),
        ("subsets", "Without some channels", subsets_section(group)),
        ("gallery", "Gallery", _gallery_lead(group) + gallery(group, chosen, display.channel, display.ignore_geometry)),
        ("labels", "Labels to review", labels_section(group, display)),
        ("calibration", "When to trust it", calibration_section(group)),
        ("table", "All cases", cases_section(group, chosen.keys())),
    )


def _document(results: Sequence[Result], parts: Sequence[_Section], names: Sequence[str], viewer: str) -> str:
    datasets = ", ".join(dict.fromkeys(result.dataset_name for result in results if result.dataset_name))
    datasets = datasets or "Segmentation"
    models = "".join(
        f'<li><i class="key {model_class(place)}"></i>{text_of(result.title)}</li>'
        for place, result in enumerate(results)
    )
    warnings = "".join(_warning(warning) for result in results for warning in result.warnings)
    links, body = sections(parts)
    options = "".join(f'<option value="{text_of(name)}"></option>' for name in names)
    find = (
        '<label>Find a case <input id="find" list="names" autocomplete="off"></label>'
        f'<datalist id="names">{options}</datalist>'
    )
    subtitle = note(f"Report of segmentations, {today()}")
    header = f'<header><h1>{text_of(datasets)}</h1>{subtitle}<ul class="models">{models}</ul>{warnings}</header>'
    return document(
        f"{datasets}: report of {today()}",
        STYLE + REPORT_STYLE + VIEWER_STYLE,
        SCRIPT + REPORT_SCRIPT + VIEWER_SCRIPT,
        f'{header}<nav>{links}{find}</nav>{body}<div id="tip" role="status"></div>'
        f'<div id="kept" role="status"></div>{viewer}',
    )


def _warning(text: str) -> str:
    return f'<p class="warning"><b>Incomplete.</b> {text_of(text)}</p>'


def _gallery_lead(group: Group) -> str:
    found = all(case.images for case in group.scored[0].result.cases)
    image = "" if found else "Some images were not found: set nnUNet_raw or give --images. "
    models = " and models" if len(group.scored) > 1 else ""
    return note(
        f"{image}Cases are chosen by their mean Dice over regions{models}. Axial, coronal and sagittal "
        "slices where reference and predictions are largest, with outlines of the regions; R and L are the patient's "
        "right and left, A and P front and back, S and I up and down. Click a picture to open its case."
    )
