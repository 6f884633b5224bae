"""nnU-Net's checkpoints, read without executing code in them: only plain values, tensors and NumPy numbers."""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.integrity import zip_damage

_NEEDED = ("network_weights", "trainer_name", "init_args")
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
    """

    weights: Mapping[str, torch.Tensor]
    trainer_name: str
    configuration: str
    mirroring_axes: tuple[int, ...] | None
    digest: str


def checkpoint_content(
    weights: Mapping[str, torch.Tensor],
    trainer_name: str,
    plans: Mapping[str, Any],
    configuration: str,
    fold: str,
    dataset_json: Mapping[str, Any],
    mirroring_axes: tuple[int, ...] | None,
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
    }


def read_fold(path: Path, trusted: bool = False) -> FoldCheckpoint:
    """Read a checkpoint.

    Args:
        path: the file.
        trusted: whether code in the file may be executed.

    Raises:
        UserError: it is damaged, needs code to be executed, or is not an nnU-Net checkpoint.
    """
    content = load_content(path, trusted, "Continue the training with --c, or copy the file again")
    if not isinstance(content, Mapping) or any(key not in content for key in _NEEDED):
        raise UserError(f"{path} is not a checkpoint of an nnU-Net trainer: it lacks one of {', '.join(_NEEDED)}")
    axes = content.get("inference_allowed_mirroring_axes")
    return FoldCheckpoint(
        weights=content["network_weights"],
        trainer_name=str(content["trainer_name"]),
        configuration=str(content["init_args"]["configuration"]),
        mirroring_axes=None if axes is None else tuple(axes),
        digest=_digest(path),
    )


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


def load_content(path: Path, trusted: bool, fix: str) -> Any:
    """Load everything in a checkpoint to the CPU.

    Args:
        path: the file.
        trusted: whether code in the file may be executed.
        fix: what the user can do if it is damaged.

    Raises:
        UserError: it is damaged, or needs code to be executed.
    """
    try:
        # torch reads damaged weights without comparing their checksums. Before torch 1.6 the file was not a zip.
        if zipfile.is_zipfile(path) and (damage := zip_damage(path)) is not None:
            raise OSError(damage)
        if trusted:
            return torch.load(path, map_location="cpu", weights_only=False)
        with torch.serialization.safe_globals(list(ALLOWED_GLOBALS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's readers raise many kinds of exceptions for damaged files
        asked = re.findall(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else []
        if asked:
            raise UserError(
                f"{path} asks for {', '.join(_all_asked(path) or asked)}, which nnU-Net's checkpoints do not need; to "
                "load it, Python would execute code from the file, so it is refused. If you trust its origin: "
                "--trust-checkpoint"
            ) from error
        raise UserError(
            f"{path} cannot be read ({next(iter(str(error).splitlines()), type(error).__name__)}): truncated or "
            f"damaged. {fix}"
        ) from error


def _all_asked(path: Path) -> list[str]:
    """What the file asks for beyond the allow-list, as far as torch can find out without loading it."""
    try:
        with torch.serialization.safe_globals(list(ALLOWED_GLOBALS)):
            return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # files of other forms
        return []


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
