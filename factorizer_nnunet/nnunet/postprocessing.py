"""nnU-Net's postprocessing of a model, from its JSON file: which labels keep only their largest component.

nnU-Net itself applies the pickle next to it; the JSON says the same and executes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.exported_model import NNUNET_POSTPROCESSING_FILE
from factorizer_nnunet.nnunet.model_folder import ModelFolder

Steps = tuple[tuple[int, ...], ...]  # of the labels of each set together, only the largest component stays
FUNCTION = "remove_all_but_largest_component_from_segmentation"  # nnU-Net's only one
_FUNCTIONS, _ARGUMENTS, _LABELS = "postprocessing_fns", "postprocessing_kwargs", "labels_or_regions"
_FIX = "Make it again with nnUNetv2_find_best_configuration"


def postprocessing_of(model: ModelFolder, folds: Sequence[str]) -> Steps | None:
    """The postprocessing that nnU-Net chose for these folds together, or of an exported model; None if there is none.

    Raises:
        UserError: the file cannot be used.
    """
    files = [model.path / NNUNET_POSTPROCESSING_FILE]
    if all(fold.isdecimal() for fold in folds):
        files.append(model.cross_validation(map(int, folds)) / NNUNET_POSTPROCESSING_FILE)
    file = next((one for one in files if one.is_file()), None)
    return None if file is None else read_steps(file)


def read_steps(file: Path) -> Steps:
    """Read nnU-Net's file.

    Raises:
        UserError: it cannot be read, or asks for something else than nnU-Net's function.
    """
    content = load_json_object(file, _FIX)
    try:
        functions, arguments = content[_FUNCTIONS], content[_ARGUMENTS]
        if set(functions) - {FUNCTION} or len(functions) != len(arguments):
            raise ValueError(f"{functions!r} with {len(arguments)} arguments")
        if any(set(entry) != {_LABELS} for entry in arguments):
            raise ValueError(f"other arguments than {_LABELS}")
        return tuple(_labels(entry[_LABELS]) for entry in arguments)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not nnU-Net's postprocessing ({error!r}). {_FIX}"[:500]) from error


def steps_content(steps: Steps) -> dict[str, Any]:
    """The content of a file with these steps, as nnU-Net names them."""
    return {_FUNCTIONS: [FUNCTION] * len(steps), _ARGUMENTS: [{_LABELS: list(labels)} for labels in steps]}


def describe(steps: Steps) -> str:
    """The steps in words; "" if nothing is done."""
    return "; then ".join(f"only the largest component of label {', '.join(map(str, one))} stays" for one in steps)


def _labels(value: object) -> tuple[int, ...]:
    """The labels of a set, in which a list of labels and a region mean the same: all of them together."""
    if isinstance(value, list):
        return tuple(dict.fromkeys(label for one in value for label in _labels(one)))
    if type(value) is not int:
        raise ValueError(f"{value!r} is not a label")
    return (value,)
