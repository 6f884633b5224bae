"""Where the axes of the training images lead: nnU-Net does not turn images, and its fingerprint does not say it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from batchgenerators.utilities.file_and_folder_operations import load_pickle

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.json_files import json_or_none
from factorizer_nnunet.nnunet.training_images import ORIENTATIONS_KEY, orientation_of_properties


def add_orientations(fingerprint: Path, preprocessed: Path) -> None:
    """Add the orientations of all training images, most frequent first, to a model's copy of the fingerprint.

    Nothing is added where one is not known: of 2D images, and of readers that do not keep SimpleITK's header.

    Args:
        fingerprint: in the model's folder.
        preprocessed: folder with the properties of the cases.

    Raises:
        OSError: a file cannot be read or written; a damaged one raises what its unpickling does.
    """
    content = json_or_none(fingerprint)
    codes = Counter(orientation_of_properties(load_pickle(str(file))) for file in sorted(preprocessed.glob("*.pkl")))
    if isinstance(content, dict) and codes and None not in codes:
        known = [code for code, _ in codes.most_common()]
        write_text_atomically(fingerprint, json.dumps({**content, ORIENTATIONS_KEY: known}, indent=4))
