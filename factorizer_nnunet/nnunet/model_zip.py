"""Zips of ``nnUNetv2_export_model_to_zip``, unpacked without trusting them.

nnU-Net unpacks such a file into nnUNet_results, over whatever lies there. Here only what a model consists of is
unpacked, to a folder of the caller: plans, ``dataset.json`` and checkpoints, which are then read like those of any
other model folder.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.core.zip_files import unpack_zip
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE
from factorizer_nnunet.nnunet.model_folder import PLANS_FILE, is_fold
from factorizer_nnunet.nnunet.model_name import ModelName

_FIX = "Export the model again with nnUNetv2_export_model_to_zip, or copy the file again"


def unpack_model(file: Path, target: Path, checkpoint: str, configuration: str | None = None) -> Path:
    """Unpack the model of a zip.

    Args:
        file: made by ``nnUNetv2_export_model_to_zip``, or of one model folder.
        target: an empty folder.
        checkpoint: name of the file in each fold, such as ``checkpoint_final.pth``.
        configuration: of the model, if the file has several.

    Returns:
        the model folder below ``target``.

    Raises:
        UserError: the file is damaged, leads outside the folder, has none of these models or several, or is larger
            than the free space.
    """
    unpack_zip(file, target, _FIX, partial(_files_of_model, file, checkpoint, configuration))
    (plans,) = target.glob(f"**/{PLANS_FILE}")
    return plans.parent


def _files_of_model(file: Path, checkpoint: str, configuration: str | None, names: Sequence[str]) -> Collection[str]:
    paths = {PurePosixPath(name): name for name in names}
    model = _model_folder([path.parent for path in paths if path.name == PLANS_FILE], file, configuration)
    return {
        name
        for path, name in paths.items()
        if path.parent == model
        and path.name in (PLANS_FILE, DATASET_FILE)
        or path.parent.parent == model
        and is_fold(Path(path.parent.name))
        and path.name == checkpoint
    }


def _model_folder(folders: Sequence[PurePosixPath], file: Path, configuration: str | None) -> PurePosixPath:
    """The folder of the only model in a zip, or the only one of a configuration, among those that have plans."""
    models = [folder for folder in sorted(folders) if ModelName.parse(folder.name) is not None]
    if not models:
        raise UserError(
            f"{file} has no model folder TRAINER__PLANS__CONFIGURATION with {PLANS_FILE}. Name a zip of "
            "nnUNetv2_export_model_to_zip, or a model folder"
        )
    of_configuration = [
        folder for folder in models if configuration is None or folder.name.endswith(f"__{configuration}")
    ]
    if len(of_configuration) != 1:
        names = first_few([folder.name for folder in models], 10)
        wanted = f"{len(of_configuration)} of {configuration}" if configuration else f"{len(models)} models"
        raise UserError(
            f"{file} has {wanted}: {names}. Name one configuration with -c; where that is not enough, unpack the file "
            "and name a model folder"
        )
    return of_configuration[0]
