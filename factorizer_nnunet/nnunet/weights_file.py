"""Weights of a fold as safetensors, which contains numbers and texts and nothing that could be executed.

Format: https://huggingface.co/docs/safetensors. The metadata of the file have what a prediction needs besides the
weights, so that the file is read as a checkpoint with the entries of nnU-Net's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.absent_channels import CHECKPOINT_KEY as CHANNEL_DROP_KEY

SUFFIX = ".safetensors"
WEIGHTS_FILE = f"weights{SUFFIX}"  # in the folder of a fold
_RESTORE = "Copy the file again from where it was exported"
_CHECKPOINT = "factorizer_nnunet"  # the only entry of the metadata: of several, the order in the file is random


def write_weights(
    path: Path,
    weights: Mapping[str, torch.Tensor],
    trainer_name: str,
    configuration: str,
    mirroring_axes: tuple[int, ...] | None,
    channel_drop: bool,
) -> None:
    """Write the weights of a fold and what a prediction needs to know about them.

    A tensor that the network has under several names, as nnU-Net's U-Net has, is written once.

    Raises:
        OSError: it cannot be written.
    """
    names: dict[tuple[Any, ...], str] = {}
    same_as = {}
    for name, tensor in weights.items():
        place = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
        if tensor.numel() and names.setdefault(place, name) != name:
            same_as[name] = names[place]
    own = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}
    content = {
        "trainer_name": trainer_name,
        "configuration": configuration,
        "mirroring_axes": mirroring_axes,
        "channel_drop": channel_drop,
        "same_as": same_as,
    }
    kept = {name: tensor for name, tensor in own.items() if name not in same_as}
    try:
        save_file(kept, path, {_CHECKPOINT: json.dumps(content)})
    except SafetensorError as error:  # also for a full disk
        raise OSError(f"cannot write {path}: {error}") from error


def read_weights_file(path: Path) -> dict[str, Any]:
    """The content of a file of weights, with the entries of a checkpoint of nnU-Net that predictions read.

    Raises:
        UserError: it is damaged, or was not written by ``write_weights``.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. {_RESTORE}") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): truncated or damaged. {_RESTORE}") from error
    try:
        content = json.loads(metadata[_CHECKPOINT])
        weights |= {name: weights[other] for name, other in content["same_as"].items()}
        return {
            "network_weights": weights,
            "trainer_name": content["trainer_name"],
            "init_args": {"configuration": content["configuration"]},
            "inference_allowed_mirroring_axes": content["mirroring_axes"],
            CHANNEL_DROP_KEY: content["channel_drop"],
        }
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} has weights, but does not say how factorizer-nnunet export wrote them ({error!r}). {_RESTORE}"
        ) from error
