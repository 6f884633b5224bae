"""Apply a filled-in review list: a new folder with all labels, of which some are corrected."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from factorizer_nnunet.core.atomic_files import atomic_folder
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.label_check.check import CheckedCase, proposals_in
from factorizer_nnunet.label_check.finding import Finding
from factorizer_nnunet.label_check.label_files import write_corrected
from factorizer_nnunet.label_check.review import (
    AGAIN,
    BY_HAND,
    CORRECT,
    KEEP,
    RECORD_FILE,
    Review,
    read_decisions,
    read_review,
)


@dataclass(frozen=True)
class Applied:
    """What was done.

    Attributes:
        folder: of the new labels.
        corrected: findings that were corrected.
        kept, by_hand, undecided: other findings.
        copied: number of labels that were copied unchanged.
    """

    folder: Path
    corrected: tuple[Finding, ...]
    kept: tuple[Finding, ...]
    by_hand: tuple[Finding, ...]
    undecided: tuple[Finding, ...]
    copied: int


def apply_list(file: Path, target: Path) -> Applied:
    """Write all labels to a new folder, corrected where the list says so; existing files are not changed.

    Args:
        file: the list, next to the record of label-check.
        target: the new folder; it may exist if it is empty.

    Raises:
        UserError: the list cannot be applied, files have changed since, or the folder is not empty; nothing is written.
    """
    if not file.is_file():
        raise UserError(f"{file} is not a file. Give the list that label-check wrote, filled in")
    folder = file.absolute().parent
    if not (folder / RECORD_FILE).is_file():
        raise UserError(f"{folder} has no {RECORD_FILE}. Put the list back next to the one that label-check wrote")
    review = read_review(folder)
    decisions = read_decisions(file, review)
    by_decision = {
        decision: tuple(one for one in review.findings if decisions.get(one.key, "") == decision)
        for decision in (CORRECT, KEEP, BY_HAND, "")
    }
    chosen = by_decision[CORRECT]
    cases = list(dict.fromkeys(one.case for one in chosen))
    labels = _label_folder(list(review.cases.values()))
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(f"{target} exists and is not overwritten. Name a new folder with -o")
    if target.resolve().is_relative_to(labels.resolve()):
        raise UserError(f"{target} is within the folder of the labels, {labels}. Name another folder with -o")
    changed = review.changed_files(cases)
    if changed:
        raise UserError(f"files have changed since they were checked: {first_few(list(map(str, changed)))}. {AGAIN}")
    corrected = {case: _corrected(review, case, [one for one in chosen if one.case == case]) for case in cases}
    copied = _write(labels, {review.cases[case].reference.name: new for case, new in corrected.items()}, target)
    return Applied(target, chosen, by_decision[KEEP], by_decision[BY_HAND], by_decision[""], copied)


def _label_folder(cases: Sequence[CheckedCase]) -> Path:
    folders = {case.reference.parent for case in cases}
    if len(folders) != 1:
        raise UserError(
            f"the labels lie in several folders, {', '.join(map(str, sorted(folders)))}: gather them in one"
        )
    return folders.pop()


def _corrected(review: Review, case: str, chosen: Sequence[Finding]) -> np.ndarray:
    """The label of a case, of the shape that ``read_labels`` gives, with corrections."""
    try:
        image, proposals, _ = proposals_in(review.cases[case], review.dataset, review.ignore_geometry)
    except OSError as error:
        raise UserError(f"{error}. {AGAIN}") from error
    known = {proposal.finding.key: proposal for proposal in proposals}
    wide = np.result_type(image.labels.dtype, np.min_scalar_type(max(review.dataset.label_values)))
    labels = image.labels.astype(wide, order="C")
    for finding in chosen:
        if finding.key not in known:
            raise UserError(f"{case}: finding {finding.key} is not found any more. {AGAIN}")
        labels.reshape(-1)[known[finding.key].places] = known[finding.key].values
    return labels


def _write(labels: Path, corrected: dict[str, np.ndarray], target: Path) -> int:
    """Write the folder; returns how many label files were copied unchanged."""
    files = [path for path in sorted(labels.iterdir()) if path.is_file() and not path.name.startswith(".")]
    try:
        with atomic_folder(target) as draft:
            for path in files:
                if path.name in corrected:
                    write_corrected(path, corrected[path.name], draft / path.name)
                else:
                    shutil.copy2(path, draft / path.name)
    except (OSError, RuntimeError) as error:  # the latter from SimpleITK
        raise UserError(
            f"cannot write {target}: {error}. Check permissions and the space on its disk, or name another folder with "
            "-o"
        ) from error
    return len(files) - len(corrected)
