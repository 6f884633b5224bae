"""Find a data set in nnU-Net's folders by its ID or its name."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE
from factorizer_nnunet.nnunet.environment import RAW_VARIABLE, nnunet_folder

NAME_PATTERN = re.compile(r"Dataset(\d{3,})_.+")


def find_dataset(dataset: str | int, variable: str = "nnUNet_raw") -> tuple[int, str]:
    """The ID and the folder name of a data set in one of nnU-Net's folders.

    Args:
        dataset: an ID such as ``4`` or ``"004"``, or a name such as ``"Dataset004_Hippocampus"``.
        variable: names the folder, which is ``nnUNet_raw`` or ``nnUNet_preprocessed``.

    Raises:
        UserError: the folder is not usable, has no such data set, or the ID belongs to several names.
    """
    folder = nnunet_folder(variable, writable=False)
    text = str(dataset).strip()
    named = NAME_PATTERN.fullmatch(text)
    if named is None and re.fullmatch(r"\d+", text) is None:
        raise UserError(
            f"{text!r} is neither a data set ID nor a name of the form DatasetXXX_Name. {_known(folder, variable)}"
        )
    dataset_id = int(named.group(1) if named else text)
    # nnU-Net's commands take an ID and give up when raw, preprocessed and results folders hold several names for it.
    names = [str(name) for name in find_candidate_datasets(dataset_id)]
    if len(names) > 1:
        raise UserError(
            f"the ID {dataset_id} belongs to several data sets in nnUNet_raw, nnUNet_preprocessed and nnUNet_results: "
            f"{', '.join(names)}. Rename or remove all but one"
        )
    name = text if named else next(iter(names), None)
    if name is None or not (folder / name).is_dir():
        raise UserError(f"no data set {text} in {variable} ({folder}). {_known(folder, variable)}")
    return dataset_id, name


def raw_folder(name: str) -> Path | None:
    """The folder of a dataset's raw data; None if there are none, as where only preprocessed data were copied to."""
    root = os.environ.get(RAW_VARIABLE, "")
    folder = Path(root) / name
    return folder if root and (folder / DATASET_FILE).is_file() else None


def _known(folder: Path, variable: str) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and NAME_PATTERN.fullmatch(path.name))
    if names:
        return f"Known there: {', '.join(names)}"
    if variable == "nnUNet_raw":
        return f"{folder} has no data set: make one of your images first, with factorizer-nnunet convert"
    return f"{folder} has no data set: plan one first, with factorizer-nnunet plan -d ID"
