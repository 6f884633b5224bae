"""nnU-Net's copies of the labels in ``gt_segmentations``, against which the trainer scores the validation cases.

nnU-Net copies a label again only if it is newer than the copy. So a label that was replaced by one with an older date,
or a copy that was cut off, stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from factorizer_nnunet.core.file_stamps import Stamp, is_unchanged, stamp_of
from factorizer_nnunet.nnunet.dataset_json import CaseFiles
from factorizer_nnunet.nnunet.names import LABEL_FOLDER


def outdated_label_copies(
    cases: Iterable[CaseFiles], folder: Path, ending: str, known: Mapping[Path, Stamp] | None = None
) -> Iterator[Path]:
    """The copies whose content is not that of their label.

    Args:
        cases: the training cases; labels that cannot be read are passed over.
        folder: the dataset's folder in ``nnUNet_preprocessed``.
        ending: of the files, with its dot.
        known: stamps of files that need not be read again.
    """
    known = known or {}
    for case in cases:
        copy = folder / LABEL_FOLDER / f"{case.name}{ending}"
        try:
            if copy.exists() and not is_unchanged(copy, known.get(case.label) or stamp_of(case.label)):
                yield copy
        except OSError:
            continue
