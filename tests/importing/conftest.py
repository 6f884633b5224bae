"""The folders that every test of importing works in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from import_example import (
    describe,
    write_dataset,
    write_json,
)
from nnunet_folders import use_folders_below
from upstream_example import CONFIG, upstream_state


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parent of nnU-Net's folders with a planned data set that fits CONFIG, and of the files to import."""
    use_folders_below(tmp_path, monkeypatch)
    monkeypatch.setenv("nnUNet_compile", "f")
    write_dataset(tmp_path, describe(2, 3))
    write_json(tmp_path / "config.json", CONFIG)
    torch.save(upstream_state(CONFIG), tmp_path / "weights.pt")
    return tmp_path
