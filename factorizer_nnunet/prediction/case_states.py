"""What the output folder has of each case, and which of it must be predicted again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from factorizer_nnunet.core.set_aside import INCOMPLETE, OUTDATED, set_aside
from factorizer_nnunet.nnunet.image_files import ImageCase
from factorizer_nnunet.nnunet.integrity import is_complete
from factorizer_nnunet.nnunet.prediction_record import compare
from factorizer_nnunet.prediction.outputs import Outputs


class State(Enum):
    """What a case is."""

    MISSING = auto()  # not predicted, or not with everything that is asked for
    CURRENT = auto()  # predicted from these images by this model
    OUTDATED = auto()  # predicted from other images or by another model
    BROKEN = auto()  # some of its files cannot be read, or are missing where there is no record
    EDITED = auto()  # changed by someone after it was predicted
    UNRECORDED = auto()  # by nnUNetv2_predict or an earlier version: of which images is not known
    UNREADABLE = auto()  # the system refuses to read it


@dataclass(frozen=True)
class CaseState:
    """The state of a case.

    Attributes:
        state: what it is.
        reason: why, for messages.
        images_changed: whether the images are others than those of the record.
        broken: files that cannot be read, or that are of no use without those that are missing.
    """

    state: State
    reason: str = ""
    images_changed: bool = False
    broken: tuple[Path, ...] = ()

    @property
    def is_kept(self) -> bool:
        """Whether files of these images exist, so that those to come must be of the same model and settings."""
        of_other_model = self.state is State.OUTDATED and not self.images_changed
        return of_other_model or self.state in (State.CURRENT, State.EDITED, State.UNRECORDED)

    @property
    def is_left(self) -> bool:
        """Whether the case is to be predicted."""
        return self.state in (State.MISSING, State.OUTDATED, State.BROKEN)


def state_of(case: ImageCase, outputs: Outputs, readable: Callable[[Path], bool]) -> CaseState:
    """Look at the files of a case.

    Args:
        case: with the images that it has now.
        outputs: where its predictions are.
        readable: whether a file contains a complete segmentation; called only for files without or unlike their record.
    """
    *others, segmentation = outputs.files(case.name)
    if not os.path.lexists(segmentation):
        return _without_segmentation(case, outputs)
    try:
        segmentation.open("rb").close()
    except OSError as error:
        return CaseState(State.UNREADABLE, f"cannot read {segmentation}: {error.strerror}")
    existing = [file for file in (*others, segmentation) if file.is_file()]
    found = compare(outputs.folder, case, existing, outputs.model)
    suspects = existing if not found.recorded else [file for file in existing if file.name in found.edited]
    broken = tuple(file for file in suspects if not (readable(file) if file == segmentation else is_complete(file)))
    images_changed = bool(found.images)
    if broken:
        reason = f"{', '.join(file.name for file in broken)} cannot be read"
        return CaseState(State.BROKEN, reason, images_changed, broken)
    if not found.recorded:
        if lacking := [file.name for file in others if file not in existing]:
            return CaseState(State.BROKEN, f"has no {', '.join(lacking)}", images_changed, tuple(existing))
        return CaseState(State.UNRECORDED)
    if found.edited:
        return CaseState(State.EDITED, f"{', '.join(found.edited)} was changed after it was written", images_changed)
    if found.images or found.model:
        reason = f"predicted from other images: {', '.join(found.images)}" if found.images else "its model has changed"
        return CaseState(State.OUTDATED, reason, images_changed)
    return CaseState(State.CURRENT if all(map(is_complete, others)) else State.MISSING)


def _without_segmentation(case: ImageCase, outputs: Outputs) -> CaseState:
    """A kill may have left its other files; those of other images would be taken for files of these."""
    existing = tuple(file for file in outputs.possible_files(case.name) if file.is_file())
    found = compare(outputs.folder, case, existing, outputs.model)
    if existing and (found.images or found.model or not found.recorded):
        return CaseState(State.BROKEN, "has no segmentation", bool(found.images), existing)
    return CaseState(State.MISSING)


def make_way(case: str, found: CaseState, outputs: Outputs) -> str | None:
    """Rename files that a new prediction must not be confused with; returns a line about it, None if there are none.

    Raises:
        OSError: they cannot be renamed.
    """
    if found.state not in (State.OUTDATED, State.BROKEN):
        return None
    files = outputs.possible_files(case) if found.state is State.OUTDATED or found.images_changed else found.broken
    why = OUTDATED if found.state is State.OUTDATED else INCOMPLETE
    renamed = [set_aside(file, why).name for file in files if os.path.lexists(file)]
    return f"{case}: {found.reason}; kept as {', '.join(renamed)}"
