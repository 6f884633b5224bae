"""Section of the page: labels that may be wrong, as label-check has found them."""

from __future__ import annotations

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.label_check.review import RECORD_FILE, read_review
from factorizer_nnunet.pages.markup import note, text_of
from factorizer_nnunet.report.case_viewer import Display
from factorizer_nnunet.report.case_volumes import read_case
from factorizer_nnunet.report.label_findings import finding_figure, findings_table, gallery_of
from factorizer_nnunet.report.label_page import review_folder
from factorizer_nnunet.report.results import CROSS_VALIDATION
from factorizer_nnunet.report.study import Group, Scored

_LISTED, _PICTURED = 20, 6


def labels_section(group: Group, display: Display) -> str:
    """The first findings of each model whose labels were checked; how to check them, if none was. "" for test cases."""
    checked = [one for one in group.scored if one.result.model is not None]
    if not checked or checked[0].result.kind != CROSS_VALIDATION:
        return ""
    parts = [part for scored in checked if (part := _of_model(group, scored, display))]
    if parts:
        return "".join(parts)
    command = f"factorizer-nnunet label-check -m {checked[0].result.folder}"
    return note(f"Not checked. To list labels that these predictions contradict: <code>{text_of(command)}</code>.")


def _of_model(group: Group, scored: Scored, display: Display) -> str:
    folder = review_folder(scored.result.folder)
    if not (folder / RECORD_FILE).is_file():
        return ""
    try:
        review = read_review(folder)
    except UserError as error:
        return note(text_of(error))
    title = f"<h3>{text_of(scored.title)}</h3>" if len(group.scored) > 1 else ""
    if review.changed_files(list(review.cases)):
        return title + note(
            f"Labels or predictions have changed since they were checked in {text_of(folder)}: run label-check again."
        )
    findings = [one for one in review.findings if one.case in group.number_of]
    lead = (
        f"The first {min(_LISTED, len(findings))} of {len(findings)} places where the model, which was not trained on "
        f"the case, contradicts the label most; all are in {text_of(folder)}. Many are errors of the model."
    )
    shown = [one for one in findings[:_PICTURED] if one.case in group.cases]
    regions = {region: scored.scores.labels[region] for region in group.regions}
    alone = Group((scored,), group.cases, group.num_all, group.number_of)
    figures = []
    for rank, one in enumerate(shown, 1):
        try:
            volumes = read_case(alone, one.case, display.channel, display.ignore_geometry)
        except (OSError, RuntimeError, ValueError, IndexError) as error:  # of SimpleITK and others
            raise UserError(f"{one.case} cannot be shown: {str(error).strip().splitlines()[-1]}") from error
        figures.append(finding_figure(rank, one, volumes, regions, group.number_of[one.case]))
    return title + note(lead) + gallery_of(figures, regions) + findings_table(findings[:_LISTED], group.number_of)
