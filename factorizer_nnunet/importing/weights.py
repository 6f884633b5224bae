"""What a user hands over, a file of weights of the authors' implementation, as plain names and tensors."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from factorizer_nnunet.core.errors import UserError

STEM = "stem.weight"  # every network of the authors has one; what precedes the name is a prefix
_CONTAINERS = ("state_dict", "model")  # where PyTorch Lightning and the authors' MONAI bundles keep a network
_NPZ_PREFIX = "state/"


@dataclass(frozen=True)
class UpstreamWeights:
    """Parameters by the authors' names.

    Attributes:
        state: the parameters, on the CPU.
        config: the configuration, where the file holds it, too.
        left_out: entries of the file that belong to something beside the network.
    """

    state: dict[str, Tensor]
    config: dict[str, Any] | None
    left_out: tuple[str, ...]


def read_weights(path: Path) -> UpstreamWeights:
    """Read a torch file or an ``.npz`` whose arrays are named ``state/NAME``; no code in the file is run.

    Raises:
        UserError: the file cannot be read, needs code to be run, or holds no network of the authors.
    """
    try:
        path.open("rb").close()  # torch and numpy report damage as OSError, too
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. Name a file of weights") from error
    config = None
    if path.suffix.lower() == ".npz":
        content, config = _read_npz(path)
    else:
        content = _network_in(_read_torch(path), path)
    state, left_out = _without_prefix(content, path)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"{path}: {name} is no tensor but {type(value).__name__}. Save the network's state_dict alone"
            )
    return UpstreamWeights(state, config, left_out)


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needed = re.search(r"GLOBAL (\S+)", str(error))
        if needed is None:
            raise _no_weights(path) from error
        raise UserError(
            f"{path} holds more than tensors and plain values (it asks for {needed[1]}); to load that, Python would "
            "run whatever the file says, so it is refused. If you trust the file, save its weights alone where the "
            f"authors' packages are installed: torch.save(torch.load({str(path)!r}, weights_only=False)['state_dict'], "
            "'weights.pt'); in a MONAI bundle the key is 'model'"
        ) from error
    except Exception as error:  # torch's readers meet damaged files with exceptions of many kinds
        raise _no_weights(path) from error


def _read_npz(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        with np.load(path) as content:  # arrays only: pickled objects are refused
            arrays = {name: content[name] for name in content.files if name.startswith(_NPZ_PREFIX)}
            config = json.loads(str(content["config"])) if "config" in content.files else None
            state = {name.removeprefix(_NPZ_PREFIX): torch.from_numpy(array) for name, array in arrays.items()}
    except (EOFError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is no .npz of plain arrays ({error}). Save the parameters with numpy.savez as {_NPZ_PREFIX}NAME"
        ) from error
    if not state:
        raise UserError(f"{path} has no arrays named {_NPZ_PREFIX}NAME. Save the parameters with such names")
    return state, config


def _network_in(content: object, path: Path) -> Mapping:
    """The state dict within what a torch file holds."""
    if not isinstance(content, Mapping):
        raise UserError(
            f"{path} holds no state_dict but {type(content).__name__}. Save the network's: "
            "torch.save(network.state_dict(), 'weights.pt')"
        )
    return next((content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), content)


def _without_prefix(content: Mapping, path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The entries of the one network, named as in it, and the names of the others."""
    names = [str(name) for name in content]
    prefixes = [name[: -len(STEM)] for name in names if re.search(rf"(^|\.){re.escape(STEM)}$", name)]
    if not prefixes:
        raise UserError(
            f"{path} has no parameter {STEM}; it has {', '.join(names[:3]) or 'none at all'} … Name a file with "
            f"the weights of the authors' Factorizer, bare or under {' or '.join(map(repr, _CONTAINERS))}"
        )
    if len(prefixes) > 1:
        raise UserError(
            f"{path} holds {len(prefixes)} networks, under {', '.join(map(repr, prefixes))}. Save one of them alone"
        )
    prefix = prefixes[0]
    state = {str(name)[len(prefix) :]: value for name, value in content.items() if str(name).startswith(prefix)}
    return state, tuple(name for name in names if not name.startswith(prefix))


def _no_weights(path: Path) -> UserError:
    return UserError(
        f"{path} is no file that torch can read, or it is damaged. Name a .pt, .pth, .ckpt or .npz of weights"
    )
