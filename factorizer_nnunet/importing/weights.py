"""Read a weights file of the authors' implementation as names and tensors."""

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
from factorizer_nnunet.nnunet.integrity import zip_damage

STEM = "stem.weight"  # in every authors' network; anything before this name is a prefix
_CONTAINERS = ("state_dict", "model")  # where PyTorch Lightning and the authors' MONAI bundles store a network
_NPZ_PREFIX = "state/"


@dataclass(frozen=True)
class UpstreamWeights:
    """Parameters by the authors' names.

    Attributes:
        state: the parameters, on the CPU.
        config: the configuration, if the file contains it.
        left_out: names of entries in the file that are not part of the network.
    """

    state: dict[str, Tensor]
    config: dict[str, Any] | None
    left_out: tuple[str, ...]


def read_weights(path: Path) -> UpstreamWeights:
    """Read a torch file or an ``.npz`` whose arrays are named ``state/NAME``; no code in the file is run.

    Raises:
        UserError: the file cannot be read, requires running code, or contains no authors' network.
    """
    try:
        path.open("rb").close()  # later OSErrors of torch and numpy mean damage
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. Name a file of weights") from error
    config = None
    if path.suffix.lower() == ".npz":
        arrays, config = _read_npz(path)
        state, left_out = _without_prefix(arrays, path)
    else:
        state, left_out = _without_prefix(_network_in(_read_torch(path), path), path)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"{path}: {name} is not a tensor but {type(value).__name__}. Save the network's state_dict alone"
            )
    return UpstreamWeights(state, config, left_out)


def _read_torch(path: Path) -> object:
    try:
        # torch reads damaged weights without comparing their checksums. Before torch 1.6 the file was not a zip.
        if zipfile.is_zipfile(path) and (damage := zip_damage(path)) is not None:
            raise OSError(damage)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needed = re.search(r"GLOBAL (\S+)", str(error))
        if needed is None:
            raise _no_weights(path) from error
        raise UserError(
            f"{path} contains more than tensors and plain values (it asks for {needed[1]}); loading that would "
            "execute code from the file, so it is refused. If you trust the file, save its weights alone where the "
            f"authors' packages are installed: torch.save(torch.load({str(path)!r}, weights_only=False)['state_dict'], "
            "'weights.pt'); in a MONAI bundle the key is 'model'"
        ) from error
    except Exception as error:  # for damaged files, torch raises exceptions of many kinds
        raise _no_weights(path) from error


def _read_npz(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        with np.load(path) as content:  # arrays only: pickled objects are refused
            arrays = {name: content[name] for name in content.files if name.startswith(_NPZ_PREFIX)}
            config = json.loads(str(content["config"])) if "config" in content.files else None
            state = {name.removeprefix(_NPZ_PREFIX): torch.from_numpy(array) for name, array in arrays.items()}
    except (EOFError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is not an .npz of plain arrays ({error}). Save parameters with numpy.savez as {_NPZ_PREFIX}NAME"
        ) from error
    if not state:
        raise UserError(f"{path} has no arrays named {_NPZ_PREFIX}NAME. Save the parameters with such names")
    return state, config


def _network_in(content: object, path: Path) -> Mapping[Any, Any]:
    """The state dict in the content of a torch file."""
    if not isinstance(content, Mapping):
        raise UserError(
            f"{path} contains no state_dict but {type(content).__name__}. Save the network's: "
            "torch.save(network.state_dict(), 'weights.pt')"
        )
    return next((content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), content)


def _without_prefix(content: Mapping[Any, Any], path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The entries of the network, without prefix, and the names of all other entries."""
    names = [str(name) for name in content]
    prefixes = [name[: -len(STEM)] for name in names if re.search(rf"(^|\.){re.escape(STEM)}$", name)]
    if not prefixes:
        raise UserError(
            f"{path} has no parameter {STEM}; it has {', '.join(names[:3]) or 'none at all'} … Name a file with "
            f"the weights of the authors' Factorizer, bare or under {' or '.join(map(repr, _CONTAINERS))}"
        )
    if len(prefixes) > 1:
        raise UserError(
            f"{path} contains {len(prefixes)} networks, under {', '.join(map(repr, prefixes))}. Save one of them alone"
        )
    prefix = prefixes[0]
    state = {str(name)[len(prefix) :]: value for name, value in content.items() if str(name).startswith(prefix)}
    return state, tuple(name for name in names if not name.startswith(prefix))


def _no_weights(path: Path) -> UserError:
    return UserError(f"{path} is damaged or not a file that torch can read. Name a .pt, .pth, .ckpt or .npz of weights")
