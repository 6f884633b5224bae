"""Check the labels of a cross-validation: a page with pictures, and a list to fill in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.label_check.check import CheckedCase, check_labels
from factorizer_nnunet.label_check.finding import Finding
from factorizer_nnunet.label_check.review import LIST_FILE, review_of, write_review
from factorizer_nnunet.nnunet.probabilities_file import PROBABILITIES_ENDING
from factorizer_nnunet.pages.markup import document, note, sections, text_of
from factorizer_nnunet.pages.style import SCRIPT, STYLE
from factorizer_nnunet.pages.viewer import ShownCase, stored_case, viewer
from factorizer_nnunet.pages.viewer_script import VIEWER_SCRIPT
from factorizer_nnunet.pages.viewer_style import VIEWER_STYLE
from factorizer_nnunet.report.case_viewer import Display
from factorizer_nnunet.report.case_volumes import CaseVolumes, read_volumes
from factorizer_nnunet.report.label_findings import counts_of, finding_figure, findings_table, gallery_of
from factorizer_nnunet.report.own_pages import page_file, write_page
from factorizer_nnunet.report.results import CROSS_VALIDATION, Result, read_results
from factorizer_nnunet.report.sources import Sources
from factorizer_nnunet.report.style import REPORT_STYLE

FOLDER = "label_check"  # next to the models of a data set
_PAGE = "label_check.html"


@dataclass(frozen=True)
class LabelCheckRequest:
    """What to check.

    Attributes:
        model: folder of a model with validated folds, or a collected cross-validation.
        out: folder of page and list; None: ``label_check/MODEL`` next to the model.
        sources: where labels and images are; None uses nnU-Net's folders.
        partial: use the folds and cases that are validated.
        num_processes: number of cases at the same time.
        pictures: number of findings with pictures.
        display: how images are shown, and how many cases can be opened.
    """

    model: Path
    out: Path | None = None
    sources: Sources | None = None
    partial: bool = False
    num_processes: int = 1
    pictures: int = 24
    display: Display = Display()


@dataclass(frozen=True)
class LabelCheckOutcome:
    """What was written.

    Attributes:
        page, table: the files.
        findings: most suspicious first.
        num_cases: that were checked.
        warnings: lines for the user.
    """

    page: Path
    table: Path
    findings: tuple[Finding, ...]
    num_cases: int
    warnings: tuple[str, ...]


def review_folder(model: Path) -> Path:
    """The folder of a model's page and list, unless another is named."""
    return model.absolute().parent / FOLDER / model.absolute().name


def write_label_check(request: LabelCheckRequest) -> LabelCheckOutcome:
    """Check the labels and write page and list; nothing else is changed.

    Raises:
        UserError: predictions or labels cannot be read, or are not of a cross-validation; nothing is written.
    """
    if request.pictures < 0:
        raise UserError(f"--pictures {request.pictures} must be 0 or more")
    result = read_results([request.model], request.sources or Sources(), None, request.partial)[0]
    if result.kind != CROSS_VALIDATION:
        raise UserError(
            f"{request.model}: labels are checked by predictions of models that were not trained on them. Name a model "
            "with validated folds, or a folder crossval_results_folds_…"
        )
    request.display.check_channel([result])
    folder = (request.out or review_folder(request.model)).absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file. Name a folder with -o")
    cases = [_checked(one.name, one.reference, one.prediction) for one in result.cases]
    display = request.display
    checked = check_labels(cases, result.dataset, request.num_processes, display.ignore_geometry)
    review = review_of(result.dataset, cases, checked.findings, display.ignore_geometry)
    unknown = [case.name for case in cases if case.probabilities is None]
    warnings = [*result.warnings, *checked.warnings]
    if unknown:
        warnings.append(
            f"{len(unknown)} of {len(cases)} cases have no probabilities ({first_few(unknown, 3)}): how sure the model "
            "was there is not known; validate the folds again with nnUNetv2_train … --val --npz to rank better"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / ".lock", f"another label-check is writing {folder}; wait until it ends"):
        page = page_file(folder / _PAGE)
        content = _page(result, checked.findings, request, warnings)
        kept = [write_review(review, folder), write_page(page, content)]
    warnings += [f"{path.name} has the earlier version, which had been filled in or edited" for path in kept if path]
    return LabelCheckOutcome(page, folder / LIST_FILE, checked.findings, len(cases), tuple(warnings))


def _checked(name: str, reference: Path, prediction: Path) -> CheckedCase:
    probabilities = prediction.with_name(f"{name}{PROBABILITIES_ENDING}")
    return CheckedCase(
        name, reference.absolute(), prediction.absolute(), probabilities.absolute() if probabilities.is_file() else None
    )


def _page(result: Result, findings: Sequence[Finding], request: LabelCheckRequest, warnings: Sequence[str]) -> str:
    names = list(result.names)
    number_of = {name: place for place, name in enumerate(names)}
    regions = result.dataset.regions
    figures = [
        finding_figure(rank, one, _volumes(result, one.case, request.display), regions, number_of[one.case])
        for rank, one in enumerate(
            tqdm(findings[: request.pictures], desc="pictures", unit="finding", leave=False, disable=None), 1
        )
    ]
    lead = (
        "Where a model that was not trained on a case contradicts its label, most suspicious first: contradictions "
        "that are sure, and far larger than usual in this data set. Many are errors of the model. Fill in the column "
        f"“decision” of {LIST_FILE} next to this page: keep, correct or by hand; then run factorizer-nnunet "
        "label-check --apply LIST -o NEW_FOLDER."
    )
    found = findings_table(findings, number_of) if findings else note("The model contradicts no label.")
    links, body = sections(
        [
            ("overview", "Overview", note(text_of(lead)) + counts_of(findings)),
            ("pictures", "The most suspicious", gallery_of(figures, regions)),
            ("list", "All findings", found),
        ]
    )
    shown = viewer(map(stored_case, _shown(result, findings, request.display)), regions, names, request.display.limits)
    title = f"{result.dataset_name or 'Segmentation'}: labels to review"
    subtitle = note(text_of(f"{len(names)} cases, checked by {result.title}"))
    warned = "".join(f'<p class="warning">{text_of(warning)}</p>' for warning in warnings)
    header = f"<header><h1>{text_of(title)}</h1>{subtitle}{warned}</header>"
    style, script = STYLE + REPORT_STYLE + VIEWER_STYLE, SCRIPT + VIEWER_SCRIPT
    return document(title, style, script, f"{header}<nav>{links}</nav>{body}{shown}")


def _shown(result: Result, findings: Sequence[Finding], display: Display) -> Iterator[ShownCase]:
    """The cases to open, the most suspicious first."""
    for name in dict.fromkeys(one.case for one in findings):
        yield _volumes(result, name, display).in_viewer(result.names.index(name))


def _volumes(result: Result, name: str, display: Display) -> CaseVolumes:
    case = next(one for one in result.cases if one.name == name)
    try:
        return read_volumes(
            case, {result.title: case.prediction}, result.dataset, display.channel, display.ignore_geometry
        )
    except (OSError, RuntimeError, ValueError, IndexError) as error:  # of SimpleITK and others
        raise UserError(f"{name} cannot be shown: {str(error).strip().splitlines()[-1]}") from error
