"""What a fold's validation writes: segmentations, of which corrected ones are kept, and scores against the labels."""

from __future__ import annotations

import filecmp
import glob
from pathlib import Path

from factorizer_nnunet.core.file_stamps import REMOVED, changed_sources, record_sources
from factorizer_nnunet.core.set_aside import EDITED, INCOMPLETE, set_aside
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.nnunet.model_folder import FoldFolder
from factorizer_nnunet.nnunet.provenance import FOLDER, Derived


def record_validation(fold: FoldFolder, labels: Path, file_ending: str) -> None:
    """Remember the segmentations as the validation has just written them, and the labels that it has scored them by.

    Of segmentations of a stopped validation, only what differs from them stays.

    Args:
        fold: the fold.
        labels: the folder of nnU-Net's copies of the labels.
        file_ending: of segmentations and labels.

    Raises:
        OSError: a file cannot be read, or the record not written.
    """
    found = _segmentations(fold, file_ending)
    for path in found.values():
        for stopped in path.parent.glob(f"{glob.escape(path.name)}.{INCOMPLETE}-*"):
            if filecmp.cmp(stopped, path, shallow=False):
                stopped.unlink()
    record_sources(_record(fold), found, {})
    validation_scores(fold, labels, file_ending).write_record()


def validation_scores(fold: FoldFolder, labels: Path, file_ending: str) -> Derived:
    """The scores of a validation, made from the labels of its cases; arguments as of ``record_validation``."""
    files = {name: labels / name for name in _segmentations(fold, file_ending)}
    present = {f"label {name}": file for name, file in files.items() if file.is_file()}
    return Derived(fold.path / FOLDER / "scores.json", present, {}, (fold.summary,))


def keep_edited(fold: FoldFolder, file_ending: str) -> list[str]:
    """Rename the segmentations that were changed after the last validation, which the next one would overwrite.

    Without a record (other trainers), they are those newer than the scores, which a validation writes last. Without
    scores (it was stopped), nothing says which were changed: all are renamed.

    Returns:
        Lines for the user.

    Raises:
        OSError: a file cannot be renamed.
    """
    found = _segmentations(fold, file_ending)
    edited: list[str] = []
    stopped: list[str] = []
    changes = changed_sources(_record(fold), found)
    if changes is not None:
        edited = [name for name, change in changes.items() if change != REMOVED]
    elif fold.summary.is_file():
        scored = fold.summary.stat().st_mtime
        edited = [name for name, path in found.items() if path.stat().st_mtime > scored]
    else:
        stopped = list(found)
    lines = [
        f"{found[name]} was changed after it was written and is kept as {set_aside(found[name], EDITED)}"
        for name in edited
    ]
    for name in stopped:
        set_aside(found[name], INCOMPLETE)
    if stopped:
        lines.append(
            f"{count_of(len(stopped), 'segmentation')} of a stopped validation in {fold.validation} now end in "
            f".{INCOMPLETE}-N: those that the next validation writes alike are then removed, corrected ones stay"
        )
    _record(fold).unlink(missing_ok=True)  # it says nothing about what an interrupted validation writes from here on
    return lines


def _record(fold: FoldFolder) -> Path:
    return fold.path / FOLDER / "segmentations.json"


def _segmentations(fold: FoldFolder, file_ending: str) -> dict[str, Path]:
    if not fold.validation.is_dir():
        return {}
    return {path.name: path for path in sorted(fold.validation.iterdir()) if path.name.endswith(file_ending)}
