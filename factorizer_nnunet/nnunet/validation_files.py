"""Segmentations of a fold's validation: those that someone has corrected are kept when the fold is validated again."""

from __future__ import annotations

from pathlib import Path

from factorizer_nnunet.core.file_stamps import REMOVED, changed_sources, record_sources
from factorizer_nnunet.core.set_aside import EDITED, set_aside
from factorizer_nnunet.nnunet.model_folder import FoldFolder
from factorizer_nnunet.nnunet.provenance import FOLDER


def record_segmentations(fold: FoldFolder, file_ending: str) -> None:
    """Remember the segmentations as the validation has just written them.

    Raises:
        OSError: a file cannot be read, or the record not written.
    """
    record_sources(_record(fold), _segmentations(fold, file_ending), {})


def keep_edited(fold: FoldFolder, file_ending: str) -> list[Path]:
    """Rename the segmentations that were changed after the last validation, which the next one would overwrite.

    Without a record (other trainers), they are those newer than the scores, which a validation writes last.

    Returns:
        The new paths.

    Raises:
        OSError: a file cannot be renamed.
    """
    found = _segmentations(fold, file_ending)
    changes = changed_sources(_record(fold), found)
    if changes is not None:
        edited = [name for name, change in changes.items() if change != REMOVED]
    elif fold.summary.is_file():
        scored = fold.summary.stat().st_mtime
        edited = [name for name, path in found.items() if path.stat().st_mtime > scored]
    else:
        edited = []
    kept = [set_aside(found[name], EDITED) for name in edited]
    _record(fold).unlink(missing_ok=True)  # what an interrupted validation writes from here on is not edited
    return kept


def _record(fold: FoldFolder) -> Path:
    return fold.path / FOLDER / "segmentations.json"


def _segmentations(fold: FoldFolder, file_ending: str) -> dict[str, Path]:
    if not fold.validation.is_dir():
        return {}
    return {path.name: path for path in sorted(fold.validation.iterdir()) if path.name.endswith(file_ending)}
