"""Inputs and results of the authors' implementation: some in this repository, more in a folder next to it, if any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

FOLDERS = (Path(__file__).parent / "authors", Path(__file__).resolve().parents[3] / "shared" / "oracle")


def oracle_files(pattern: str) -> list[Any]:
    """Parameters for ``pytest.mark.parametrize``: the files, each name once."""
    found = {path.stem: path for folder in reversed(FOLDERS) for path in sorted(folder.glob(pattern))}
    if not found:
        raise FileNotFoundError(f"no {pattern} in {FOLDERS[0]}")
    return [pytest.param(path, id=name) for name, path in sorted(found.items())]


def load(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The file's configuration and arrays."""
    with np.load(path) as content:
        arrays = {name: torch.from_numpy(content[name]) for name in content.files if name != "config"}
        return json.loads(str(content["config"])), arrays


def below(arrays: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The arrays whose name starts with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Norm of the difference over the norm of the authors' result."""
    ours, theirs = ours.detach().double(), theirs.detach().double()
    return float(torch.linalg.norm(ours - theirs) / torch.linalg.norm(theirs))
