"""Check the labels of a data set against out-of-fold predictions: files to ranked findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.worker_pool import map_unordered
from factorizer_nnunet.evaluation.reading import LabelImage, read_declared
from factorizer_nnunet.imaging.checks import grid_problem
from factorizer_nnunet.label_check.disagreement import proposals_of
from factorizer_nnunet.label_check.finding import Finding, Proposal
from factorizer_nnunet.label_check.opinion import Opinion, confidence_of, without_ignored
from factorizer_nnunet.label_check.ranking import ranked
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.probabilities_file import read_probabilities


@dataclass(frozen=True)
class CheckedCase:
    """The files of a case: its label, and what a model that was not trained on it predicts."""

    name: str
    reference: Path
    prediction: Path
    probabilities: Path | None  # None: the model's decisions count fully, however sure it was

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the findings depend on."""
        return (self.reference, self.prediction, *([self.probabilities] if self.probabilities else []))


@dataclass(frozen=True)
class Checked:
    """Findings of a data set.

    Attributes:
        findings: most suspicious first.
        warnings: of cases whose probabilities could not be used, in order.
    """

    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]


def check_labels(
    cases: Sequence[CheckedCase], dataset: DatasetJson, num_processes: int = 1, ignore_geometry: bool = False
) -> Checked:
    """All findings in all cases.

    Args:
        cases: with their files.
        dataset: what label values mean.
        num_processes: number of cases at the same time.
        ignore_geometry: compare files of the same shape wherever their voxels lie.

    Raises:
        UserError: files cannot be read or do not fit; all problems in one message.
    """
    check = partial(_findings_of, dataset=dataset, ignore_geometry=ignore_geometry)
    findings: list[Finding] = []
    problems, warnings = [], []
    for found, problem, warning in map_unordered(check, cases, num_processes, "labels"):
        findings += found
        problems += [problem] if problem else []
        warnings += [warning] if warning else []
    if problems:
        raise UserError("\n  ".join(["these labels cannot be checked:", *sorted(problems)]))
    return Checked(tuple(ranked(findings, [case.name for case in cases])), tuple(sorted(warnings)))


def _findings_of(
    case: CheckedCase, dataset: DatasetJson, ignore_geometry: bool
) -> tuple[list[Finding], str | None, str | None]:
    """Findings, the problem that prevents them, and a warning."""
    try:
        _, proposals, warning = proposals_in(case, dataset, ignore_geometry)
    except OSError as error:
        return [], str(error), None
    return [proposal.finding for proposal in proposals], None, warning


def proposals_in(
    case: CheckedCase, dataset: DatasetJson, ignore_geometry: bool = False
) -> tuple[LabelImage, list[Proposal], str | None]:
    """The label of a case, what may be wrong in it, and a warning if its probabilities could not be used.

    Raises:
        OSError: label or prediction cannot be read, or do not fit; the text begins with the file.
    """
    reference = read_declared(case.reference, dataset.label_values)
    prediction = read_declared(case.prediction, dataset.label_values - {dataset.ignore_label})
    different = grid_problem(prediction.grid, reference.grid, str(case.reference), ignore_geometry)
    if different is not None:
        raise OSError(f"{case.prediction}: {different}")
    size = reference.grid.size
    labels, predicted = without_ignored(
        reference.labels.reshape(size), prediction.labels.reshape(size), dataset.ignore_label
    )
    labels, predicted = np.ascontiguousarray(labels), np.ascontiguousarray(predicted)  # flat indices are of C order
    confidence, warning = None, None
    if case.probabilities is not None:
        try:
            confidence = confidence_of(labels, predicted, read_probabilities(case.probabilities), dataset)
        except (OSError, ValueError) as error:
            text = str(error).removeprefix(f"{case.probabilities}: ")
            warning = f"{case.probabilities}: {text}; the case was checked without them"
    opinion = Opinion(
        labels,
        predicted,
        confidence,
        float(np.prod(reference.grid.spacing)) / 1000,
        dataset.regions,
        is_complete=not (reference.labels == dataset.ignore_label).any() if dataset.ignore_label else True,
    )
    return reference, proposals_of(case.name, opinion, reference.grid), warning
