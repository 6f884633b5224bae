"""nnU-Net's folders for a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from factorizer_nnunet.environment import create_folders, environment_variables


def use_folders_below(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make nnU-Net's three folders below ``root`` and let the environment name them, and the folder of our trainer."""
    create_folders(root)
    for variable, value in environment_variables(root, {}).items():
        monkeypatch.setenv(variable, value)
