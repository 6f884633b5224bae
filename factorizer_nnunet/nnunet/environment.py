"""nnU-Net's environment variables: what they should be, as shell lines, and whether they are usable.

nnU-Net reads and writes in three folders (``nnUNet_raw``, ``nnUNet_preprocessed``, ``nnUNet_results``) and looks for
external trainers in the folders named by ``nnUNet_extTrainer``. Nothing here imports nnU-Net or torch.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

from factorizer_nnunet.core.dependency_warnings import VARIABLE as WARNINGS_VARIABLE
from factorizer_nnunet.core.dependency_warnings import value_of_variable
from factorizer_nnunet.core.errors import UserError

EXT_TRAINER_VARIABLE = "nnUNet_extTrainer"
COMPILE_VARIABLE = "nnUNet_compile"
AUGMENTATION_VARIABLE = "nnUNet_factorizer_augmentation"
STEP_VARIABLE = "nnUNet_factorizer_step"
RAW_VARIABLE, PREPROCESSED_VARIABLE = "nnUNet_raw", "nnUNet_preprocessed"
FOLDER_VARIABLES = (RAW_VARIABLE, PREPROCESSED_VARIABLE, "nnUNet_results")


class Augmentation(str, Enum):
    """Where training samples are augmented, as :data:`AUGMENTATION_VARIABLE` says."""

    AUTO = "auto"  # the workers or the device, as the training measures
    DEVICE = "device"
    WORKERS = "workers"  # the default, until the others have been measured on a GPU


class StepSetting(str, Enum):
    """How a training step is computed, as :data:`STEP_VARIABLE` says."""

    PLAIN = "plain"  # nnU-Net's step
    FUSED = "fused"  # one launch for the optimizer and one gradient clip
    INLINED = "inlined"  # as fused, and the compiled network launches the kernels itself
    GRAPHS = "graphs"  # as fused, and the network's passes run as CUDA graphs


_Choice = TypeVar("_Choice", bound=Enum)


def augmentation_setting(current: Mapping[str, str] = os.environ) -> Augmentation:
    """The value of :data:`AUGMENTATION_VARIABLE`; not set or empty means workers.

    Raises:
        UserError: it is none of the values.
    """
    return _choice(AUGMENTATION_VARIABLE, Augmentation.WORKERS, current)


def step_setting(current: Mapping[str, str] = os.environ) -> StepSetting:
    """The value of :data:`STEP_VARIABLE`; not set or empty means plain.

    Raises:
        UserError: it is none of the values.
    """
    return _choice(STEP_VARIABLE, StepSetting.PLAIN, current)


def _choice(variable: str, default: _Choice, current: Mapping[str, str]) -> _Choice:
    kind = type(default)
    value = current.get(variable, "").strip() or default.value
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(setting.value for setting in kind)
        raise UserError(f"{variable} is {value!r}; set it to one of {known}, or unset it") from None


def ext_trainer_folder() -> Path:
    """The folder for ``nnUNet_extTrainer``. It contains only the trainer shim.

    nnU-Net imports every module below such a folder as a top-level module, so it must never be the package itself.
    """
    return Path(__file__).resolve().parents[1] / "ext_trainer"


def ext_trainer_value(current: str | None) -> str:
    """The value for ``nnUNet_extTrainer``: the folders in ``current`` in their order, then ours, none twice.

    Raises:
        UserError: the path of the package contains the separator, which the variable cannot express.
    """
    ours = str(ext_trainer_folder())
    if os.pathsep in ours:
        raise UserError(
            f"the package is installed in {ours}, but {EXT_TRAINER_VARIABLE} separates folders by {os.pathsep!r}: "
            f"install it in a folder without {os.pathsep!r} in its path"
        )
    kept: dict[str, str] = {}  # by real path, so that one folder written in two ways counts once
    for folder in [*(current or "").split(os.pathsep), ours]:
        if folder.strip():
            kept.setdefault(os.path.realpath(folder), folder)
    return os.pathsep.join(kept.values())


def use_own_trainer() -> None:
    """Let nnU-Net in this process and its workers find our trainer, even if the shell was not set up."""
    os.environ[EXT_TRAINER_VARIABLE] = ext_trainer_value(os.environ.get(EXT_TRAINER_VARIABLE))


def environment_variables(root: Path | None, current: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What nnU-Net's variables should be, by name: the trainer folder and, with ``root``, the three data folders.

    Args:
        root: parent of the three data folders; made absolute. ``None`` leaves them out.
        current: the environment whose ``nnUNet_extTrainer`` is extended.
    """
    values = {EXT_TRAINER_VARIABLE: ext_trainer_value(current.get(EXT_TRAINER_VARIABLE))}
    if root is not None:
        absolute = Path(os.path.abspath(os.path.expanduser(root)))
        values.update({variable: str(absolute / variable) for variable in FOLDER_VARIABLES})
    return values


def shell_lines(root: Path | None, current: Mapping[str, str] = os.environ) -> list[str]:
    """``export NAME=VALUE`` lines of :func:`environment_variables`, quoted for a POSIX shell.

    One more keeps a warning out of the stock commands, which import torch before anything of ours.
    """
    quiet = {WARNINGS_VARIABLE: value_of_variable(current.get(WARNINGS_VARIABLE))}
    variables = environment_variables(root, current) | quiet
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def create_folders(root: Path) -> None:
    """Create the three data folders below ``root``; existing ones stay as they are.

    Raises:
        UserError: a folder cannot be created (no permission, or there is a file of this name).
    """
    for variable, folder in environment_variables(root).items():
        if variable in FOLDER_VARIABLES:
            try:
                Path(folder).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"cannot create the folder {folder} for {variable}: {error.strerror}. "
                    "Choose a --root in which you may write"
                ) from error


@dataclass(frozen=True)
class FolderProblem:
    """What is wrong with a folder variable, and how to fix it; both one sentence without a full stop."""

    problem: str
    fix: str


def folder_problem(variable: str, *, writable: bool, current: Mapping[str, str] = os.environ) -> FolderProblem | None:
    """Why the folder in ``variable`` cannot be used; ``None`` if it can.

    Args:
        variable: one of :data:`FOLDER_VARIABLES`.
        writable: whether files will be written there.
        current: the environment to read.
    """
    value = current.get(variable, "")
    if not value.strip():
        return FolderProblem(
            f"{variable} is not set",
            f"Set it to your nnU-Net folder (export {variable}=/path/to/{variable}), "
            'or set all of them below one folder: eval "$(factorizer-nnunet env --root DIR)"',
        )
    if (unexpanded := _unexpanded(variable, value)) is not None:
        return unexpanded
    if not os.path.exists(value):
        return FolderProblem(
            f"{variable} names {value}, which does not exist",
            f"Create it (mkdir -p {shlex.quote(value)}) or correct the path",
        )
    if not os.path.isdir(value):
        return FolderProblem(f"{variable} names {value}, which is not a folder", "Set it to a folder")
    if not os.access(value, os.R_OK | os.X_OK):
        return FolderProblem(
            f"{variable} names {value}, which you may not read", "Change its permissions or the variable"
        )
    for other in FOLDER_VARIABLES:
        if other != variable and other in current and os.path.realpath(current[other]) == os.path.realpath(value):
            return FolderProblem(
                f"{variable} and {other} name the same folder, {value}, in which their files would be mixed",
                f"Set {variable} to a folder of its own",
            )
    if writable and not os.access(value, os.W_OK | os.X_OK):
        return FolderProblem(
            f"{variable} names {value}, in which you may not write",
            f"Change its permissions, or set {variable} to a folder of your own",
        )
    return None


def _unexpanded(variable: str, value: str) -> FolderProblem | None:
    """What a shell would have replaced, but nnU-Net takes as part of a folder's name."""
    if os.path.isabs(value) and os.path.exists(value):
        return None  # a folder may have any name
    inner = value.strip().strip("'\"")
    if inner != value.strip():
        found = "quotes around the path, which are then part of its name"
    elif value.startswith("~"):
        found = "~ that the shell has not replaced by your home folder, since it was in quotes or in a file"
    elif re.search(r"\$\w|\$\{", value):
        found = "a variable that the shell has not replaced, since it was in single quotes or in a file"
    else:
        return None
    path = os.path.expanduser(os.path.expandvars(inner))
    usable = path if os.path.isabs(path) and "$" not in path else f"/path/to/{variable}"
    return FolderProblem(
        f"{variable} is {value}: it has {found}", f"Set it as: export {variable}={shlex.quote(usable)}"
    )


def nnunet_folder(variable: str, *, writable: bool, current: Mapping[str, str] = os.environ) -> Path:
    """The folder in ``variable``, checked by :func:`folder_problem`.

    Raises:
        UserError: the folder cannot be used.
    """
    found = folder_problem(variable, writable=writable, current=current)
    if found is not None:
        raise UserError(f"{found.problem}. {found.fix}")
    return Path(current[variable])


def required_folders(current: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """All three nnU-Net folders by variable, each existing; the raw data may be read-only, the others may not.

    Raises:
        UserError: as :func:`nnunet_folder`, for the first folder that cannot be used.
    """
    return {
        variable: nnunet_folder(variable, writable=variable != "nnUNet_raw", current=current)
        for variable in FOLDER_VARIABLES
    }
