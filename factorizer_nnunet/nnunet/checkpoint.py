"""nnU-Net's checkpoints, read without executing code in them: only plain values, tensors and NumPy numbers."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import stamp_of
from factorizer_nnunet.nnunet.absent_channels import CHECKPOINT_KEY as CHANNEL_DROP_KEY
from factorizer_nnunet.nnunet.integrity import zip_damage
from factorizer_nnunet.nnunet.weights_file import SUFFIX as EXPORTED_SUFFIX
from factorizer_nnunet.nnunet.weights_file import read_weights_file

_NEEDED = ("network_weights", "trainer_name", "init_args")
_RESTORE = "Copy the file again from where it was trained"
_TRUST = "If you trust its origin: --trust-checkpoint"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WEIGHT_TYPES = (*_FLOATS, torch.int64, torch.int32, torch.bool)  # counters and masks are integers
# What nnU-Net's checkpoints need beyond what torch allows: NumPy numbers in the log. NumPy 2 moved the function.
_make_scalar = np.float32(0).__reduce__()[0]
ALLOWED_GLOBALS: tuple[Callable[..., Any] | tuple[Callable[..., Any], str], ...] = (
    np.dtype,
    (_make_scalar, "numpy._core.multiarray.scalar"),
    (_make_scalar, "numpy.core.multiarray.scalar"),
    *(type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "bool")),
)


@dataclass(frozen=True)
class FoldCheckpoint:
    """What a prediction takes from a checkpoint.

    Attributes:
        weights: the network's weights, on the CPU.
        trainer_name: the class name of the trainer.
        configuration: such as ``3d_fullres``.
        mirroring_axes: spatial axes along which the training mirrored; None if it did not.
        digest: SHA-256 of the file.
        channel_drop: whether it was trained to predict without some channels.
        plans, dataset: what it was trained with, the contents of these files; empty if it does not say.
    """

    weights: Mapping[str, torch.Tensor]
    trainer_name: str
    configuration: str
    mirroring_axes: tuple[int, ...] | None
    digest: str
    channel_drop: bool = False
    plans: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)


def checkpoint_content(
    weights: Mapping[str, torch.Tensor],
    trainer_name: str,
    plans: Mapping[str, Any],
    configuration: str,
    fold: str,
    dataset_json: Mapping[str, Any],
    mirroring_axes: tuple[int, ...] | None,
    channel_drop: bool = False,
) -> dict[str, Any]:
    """The entries of nnU-Net's checkpoints that predictions read; ``fold`` is a number or ``all``."""
    return {
        "network_weights": dict(weights),
        "trainer_name": trainer_name,
        "init_args": {
            "plans": dict(plans),
            "configuration": configuration,
            "fold": int(fold) if fold.isdecimal() else fold,
            "dataset_json": dict(dataset_json),
            "device": torch.device("cpu"),
        },
        "inference_allowed_mirroring_axes": mirroring_axes,
        **({CHANNEL_DROP_KEY: True} if channel_drop else {}),
    }


def read_fold(path: Path, trusted: bool = False) -> FoldCheckpoint:
    """Read a checkpoint of a trainer, or exported weights.

    Args:
        path: the file.
        trusted: whether code in the file may be executed; exported weights have none.

    Raises:
        UserError: it is damaged, needs code to be executed, or is not an nnU-Net checkpoint.
    """
    content = read_weights_file(path) if path.suffix == EXPORTED_SUFFIX else read_checkpoint(path, trusted)
    if any(key not in content for key in _NEEDED):
        raise UserError(f"{path} is not a checkpoint of an nnU-Net trainer: it lacks one of {', '.join(_NEEDED)}")
    arguments = content["init_args"]
    configuration = arguments.get("configuration") if isinstance(arguments, Mapping) else None
    if not isinstance(configuration, str) or not isinstance(content["trainer_name"], str):
        raise UserError(f"{path} does not name its trainer and configuration as nnU-Net writes them. {_RESTORE}")
    return FoldCheckpoint(
        weights=_checked_weights(content["network_weights"], path),
        trainer_name=content["trainer_name"],
        configuration=configuration,
        mirroring_axes=_checked_axes(content.get("inference_allowed_mirroring_axes"), path),
        digest=stamp_of(path).sha256,
        channel_drop=content.get(CHANNEL_DROP_KEY) is True,
        plans=_mapping(arguments.get("plans")),
        dataset=_mapping(arguments.get("dataset_json")),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def count_weights(path: Path) -> int | None:
    """The number of weights in a checkpoint; None if it cannot be read without executing code from the file.

    Weights stored under two names are counted once. They are not copied to memory.
    """
    try:
        with torch.serialization.safe_globals(list(ALLOWED_GLOBALS)):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        weights: Mapping[str, torch.Tensor] = content["network_weights"]
        return sum({tensor.data_ptr(): tensor.numel() for tensor in weights.values()}.values())
    except Exception:  # torch's readers raise many kinds of exceptions for damaged files
        return None


def read_checkpoint(path: Path, trusted: bool = False, fix: str | None = None) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Args:
        path: the file.
        trusted: whether code in the file may be executed.
        fix: what the user can do about a file that cannot be used; by default what fits a prediction.

    Raises:
        UserError: it is damaged, needs code to be executed, or contains no entries by name.
    """
    content = _load(path, trusted, fix)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a checkpoint of an nnU-Net trainer: it contains {type(content).__name__}")
    return content


def _load(path: Path, trusted: bool, fix: str | None) -> Any:
    try:
        path.open("rb").close()  # later OSErrors of torch mean damage
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. {_RESTORE}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. Fix that, then run the same command again") from error
    try:
        # torch reads damaged weights without comparing their checksums. Before torch 1.6 the file was not a zip.
        if zipfile.is_zipfile(path) and (damage := zip_damage(path)) is not None:
            raise OSError(damage)
        if trusted:
            return torch.load(path, map_location="cpu", weights_only=False)
        with torch.serialization.safe_globals(list(ALLOWED_GLOBALS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's readers raise many kinds of exceptions for damaged files
        _refuse_foreign(path, error, fix or _TRUST)
        raise UserError(
            f"{path} cannot be read ({next(iter(str(error).splitlines()), type(error).__name__)}): truncated or "
            f"damaged. {fix or 'Continue the training with --c, or copy the file again'}"
        ) from error


def check_executes_nothing(path: Path, fix: str) -> None:
    """Check that loading a checkpoint would execute nothing, before nnU-Net unpickles it; damage is not reported.

    Args:
        path: the file, of which no weights are read.
        fix: what the user can do about it.

    Raises:
        UserError: it would.
    """
    try:
        with torch.serialization.safe_globals(list(ALLOWED_GLOBALS)):
            torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        _refuse_foreign(path, error, fix)
        raise UserError(f"{path} cannot be read without executing code: {str(error)[:200]}. {fix}") from error
    except Exception:  # damaged: nnU-Net fails at the same place
        return


def _refuse_foreign(path: Path, error: Exception, fix: str) -> None:
    asked = re.findall(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else []
    if asked:
        raise UserError(
            f"{path} asks for {', '.join(_all_asked(path) or asked)}, which nnU-Net's checkpoints do not need; to load "
            f"it, Python would execute code from the file, so it is refused. {fix}"
        ) from error


def _checked_weights(weights: object, path: Path) -> dict[str, torch.Tensor]:
    """The weights, if they are named tensors of numbers that fill their memory.

    Whether they fit the network is checked where it is built.
    """
    if not isinstance(weights, Mapping):
        raise UserError(f"{path}: network_weights is {type(weights).__name__}, not tensors by name. {_RESTORE}")
    for name, value in weights.items():
        problem = None
        if not isinstance(value, torch.Tensor):
            problem = f"is {type(value).__name__}, not a tensor"
        elif value.is_complex() or value.is_quantized or value.dtype not in _WEIGHT_TYPES:
            problem = f"contains {str(value.dtype).removeprefix('torch.')} values, not real numbers"
        elif value.layout is not torch.strided or value.device.type != "cpu":
            problem = "is not a dense tensor in memory"
        elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
            problem = f"has shape {tuple(value.shape)}, but fewer values"
        if not isinstance(name, str) or problem is not None:
            raise UserError(f"{path}: weight {name!r} {problem or 'is not named by a text'}. {_RESTORE}")
    return dict(weights)


def _checked_axes(axes: object, path: Path) -> tuple[int, ...] | None:
    if axes is None:
        return None
    if not isinstance(axes, list | tuple) or any(type(axis) is not int or not 0 <= axis <= 2 for axis in axes):
        raise UserError(
            f"{path}: inference_allowed_mirroring_axes {axes!r} must be axes among 0, 1, 2. {_RESTORE}"[:400]
        )
    return tuple(sorted(set(axes))) or None


def _all_asked(path: Path) -> list[str]:
    """What the file asks for beyond the allow-list, as far as torch can find out without loading it."""
    try:
        with torch.serialization.safe_globals(list(ALLOWED_GLOBALS)):
            return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # files of other forms
        return []
