"""What fingerprint, preprocessed data and trainings were made from, so that stale ones are never used unnoticed.

Our commands leave a record of sources for each of them in ``factorizer_sources``, next to what nnU-Net writes. Files
that stock commands made have no record; then times decide, and where these are in doubt what was made counts as stale,
unless it took long to make.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from factorizer_nnunet.core.file_stamps import Source, changed_sources, stamp_of_value
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, DatasetJson
from factorizer_nnunet.nnunet.integrity import newest

FOLDER = "factorizer_sources"  # in a dataset's folder in nnUNet_preprocessed, and in the folder of a trained fold
# What preprocessed data depend on; other entries, such as a description, may change.
_DATASET_KEYS = ("labels", "regions_class_order", "channel_names", "modality", "overwrite_image_reader_writer")


def raw_sources(raw: Path, description: DatasetJson) -> dict[str, Source]:
    """All images and labels of the training cases by their path in the raw dataset, and what dataset.json declares.

    Args:
        raw: the dataset's folder in ``nnUNet_raw``.
        description: its dataset.json.
    """
    files = [
        *description.training_labels(raw).values(),
        *(image for images in description.training_images(raw).values() for image in images),
    ]
    declared = {key: description.content.get(key) for key in _DATASET_KEYS}
    return {os.path.relpath(file, raw): file for file in files} | {DATASET_FILE: stamp_of_value(declared)}


def fingerprint_record(folder: Path) -> Path:
    """The record of the fingerprint's sources; ``folder`` is the dataset's in ``nnUNet_preprocessed``."""
    return folder / FOLDER / "fingerprint.json"


def data_record(folder: Path, data_identifier: str) -> Path:
    """The record of the sources of preprocessed data."""
    return folder / FOLDER / f"data.{data_identifier}.json"


def stale_reason(made: Path, record: Path, sources: Mapping[str, Source]) -> str | None:
    """Why an existing file is stale, in words; None if it is not.

    Args:
        made: the file, or the last one of several.
        record: of its sources; it may not exist.
        sources: the sources now.
    """
    changes = changed_sources(record, sources)
    if changes is None:
        files = [source for source in sources.values() if isinstance(source, Path)]
        return "its sources are newer" if newest(files) > made.stat().st_mtime else None
    return f"its sources have changed since: {first_few(changes, 3)}" if changes else None
