"""Write a report: read folders of results, score the cases not scored yet, and write the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.pages.limits import ViewerLimits
from factorizer_nnunet.report.case_viewer import Display
from factorizer_nnunet.report.own_pages import page_file, write_page
from factorizer_nnunet.report.page import html_page
from factorizer_nnunet.report.results import read_results
from factorizer_nnunet.report.scoring import score
from factorizer_nnunet.report.sources import Sources
from factorizer_nnunet.report.study import build_groups, check_case_sets
from factorizer_nnunet.report.titles import titles_for


@dataclass(frozen=True)
class Written:
    """A report that was written.

    Attributes:
        datasets: the dataset.json that names the labels of each result.
        warnings: what is missing, as the page says, too.
        kept: where an existing page is now that someone had edited, or an earlier version had written.
    """

    datasets: list[Path]
    warnings: list[str]
    kept: Path | None

    @property
    def kept_line(self) -> str | None:
        """A line for the user about the existing page, if it was renamed."""
        return (
            None if self.kept is None else f"the page was edited after it was written, or is older; kept as {self.kept}"
        )


def write_report(
    result_folders: Sequence[Path],
    target: Path,
    *,
    names: Sequence[str] | None = None,
    sources: Sources | None = None,
    scheme: str = "none",
    scores_folder: Path | None = None,
    num_processes: int = 1,
    partial: bool = False,
    channel: int | None = None,
    ignore_geometry: bool = False,
    viewer_cases: int = ViewerLimits.cases,
    viewer_mb: float = ViewerLimits.mb,
) -> Written:
    """Write one HTML page about results of nnU-Net. The folders of results are not changed.

    Args:
        result_folders: models (``TRAINER__PLANS__CONFIGURATION``), collected cross-validations, ensembles, or
            predictions; results with the same cases are compared.
        target: the page, or a link to it; an existing page is replaced once the new one is complete, or renamed if
            someone has edited it; any other file is refused.
        names: of the results, one for each folder; None derives them from the folders.
        sources: where references and images are; None uses nnU-Net's folders from the environment.
        scheme: how to score, a key of `evaluation.schemes.SCHEMES`.
        scores_folder: where scores are saved for reuse; None saves them next to the page, in ``STEM_scores``.
        num_processes: number of cases scored at the same time.
        partial: report existing results, with a warning on the page, if folds or cases are missing.
        channel: of the images in the gallery, counted from 0; None chooses one that shows the labels.
        ignore_geometry: score and draw files of the same shape even if their voxels lie in different places.
        viewer_cases: number of cases whose volumes are stored in the page, to look at.
        viewer_mb: limit of all these volumes together.

    Raises:
        UserError: results cannot be read, scored or compared; all problems in one message, and nothing is written.
    """
    file = page_file(target)
    display = Display(channel, ignore_geometry, ViewerLimits(viewer_cases, viewer_mb))
    results = read_results(result_folders, sources or Sources(), names, partial)
    groups = check_case_sets(results, partial)
    display.check_channel(results)
    saved = scores_folder if scores_folder is not None else target.with_name(f"{target.stem}_scores")
    saved_as = names or titles_for([folder.resolve() for folder in result_folders], complete=True)
    scores, problems = [], []
    bar = tqdm(results, desc="scores", unit="model", leave=False, disable=None)
    for place, result in enumerate(bar):
        bar.set_postfix_str(result.title)
        try:
            scores.append(
                score(result, saved / _folder_name(place, saved_as[place]), scheme, num_processes, ignore_geometry)
            )
        except UserError as error:
            problems.append(f"{result.folder}: {error}")
    if problems:
        raise UserError("\n".join(problems))
    page = html_page(results, build_groups(results, scores, groups), display)
    warnings = [warning for result in results for warning in result.warnings]
    return Written([result.dataset.path for result in results], warnings, write_page(file, page))


def _folder_name(place: int, title: str) -> str:
    """A name for any file system, such as 0_nnUNetTrainer."""
    return f"{place}_" + "".join(c if c.isalnum() or c in "-_." else "_" for c in title)[:80]
