"""nnU-Net's copies of the labels in ``gt_segmentations``, against which the trainer scores the validation cases.

nnU-Net copies a label again only if it is newer than the copy. So a label that was replaced by one with an older date,
or a copy that was cut off, stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from factorizer_nnunet.core.file_stamps import is_unchanged, stamp_of
from factorizer_nnunet.nnunet.names import LABEL_FOLDER


def outdated_label_copies(labels: Mapping[str, Path], folder: Path, ending: str) -> Iterator[Path]:
    """The copies whose content is not that of their label.

    Args:
        labels: the label file of each training case; those that cannot be read are passed over.
        folder: the dataset's folder in ``nnUNet_preprocessed``.
        ending: of the files, with its dot.
    """
    for case, label in labels.items():
        copy = folder / LABEL_FOLDER / f"{case}{ending}"
        try:
            if copy.exists() and not is_unchanged(copy, stamp_of(label)):
                yield copy
        except OSError:
            continue
