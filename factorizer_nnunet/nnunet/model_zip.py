"""Zips of ``nnUNetv2_export_model_to_zip``, unpacked without trusting them.

nnU-Net unpacks such a file into nnUNet_results, over whatever lies there. Here only what a model consists of is
unpacked, to a folder of the caller: plans, ``dataset.json`` and checkpoints, which are then read like those of any
other model folder.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.path_names import component_problem
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE
from factorizer_nnunet.nnunet.integrity import zip_damage
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
    try:
        if (damage := zip_damage(file)) is not None:
            raise UserError(f"{file} is not a complete zip file ({damage}). {_FIX}")
        with zipfile.ZipFile(file) as archive:
            members = _members(archive, file)
            chosen = _chosen(members, file, configuration)
            wanted = {
                path: member
                for path, member in members.items()
                if path.parent == chosen
                and path.name in (PLANS_FILE, DATASET_FILE)
                or path.parent.parent == chosen
                and is_fold(Path(path.parent.name))
                and path.name == checkpoint
            }
            _check_space(wanted.values(), target, file)
            for path, member in wanted.items():
                _unpack(archive, member, target / path)
    except (EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # also a password
        raise UserError(f"{file} cannot be unpacked: {error}. {_FIX}") from error
    except OSError as error:
        raise UserError(
            f"cannot unpack {file} to {target}: {error.strerror or error}. Fix that and try again"
        ) from error
    return target / chosen


def _members(archive: zipfile.ZipFile, file: Path) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files of the zip by their paths.

    Raises:
        UserError: a path leads outside, or an entry is a link.
    """
    members = {}
    for member in archive.infolist():
        if member.is_dir():
            continue
        parts = member.filename.split("/")
        if any(component_problem(part) is not None for part in parts):
            raise UserError(f"{file} contains {member.filename!r}, which is not the path of a file below it. {_FIX}")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(f"{file} contains {member.filename}, which is a link. {_FIX}")
        members[PurePosixPath(*parts)] = member
    return members


def _chosen(members: dict[PurePosixPath, zipfile.ZipInfo], file: Path, configuration: str | None) -> PurePosixPath:
    """The folder of the only model in a zip, or the only one of a configuration."""
    folders = sorted(path.parent for path in members if path.name == PLANS_FILE)
    models = [folder for folder in folders if ModelName.parse(folder.name) is not None]
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


def _check_space(members: Iterable[zipfile.ZipInfo], target: Path, file: Path) -> None:
    needed = sum(member.file_size for member in members)
    free = shutil.disk_usage(target).free
    if needed > free:
        raise UserError(
            f"{file} needs {needed / 1e9:.1f} GB unpacked, {target} has {free / 1e9:.1f} GB free. Free some space, or "
            "set TMPDIR to another disk"
        )


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)
