"""Runs over fake programs: the complete machinery without the hours that nnU-Net takes."""

from __future__ import annotations

from pathlib import Path

import fake_nnunet
import pytest
from nnunet_folders import use_folders_below
from running_example import write_raw

from factorizer_nnunet.running import execution, run


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the fake programs, for ``fake_nnunet.order``; nnU-Net's folders are next to it."""
    folder = tmp_path / "programs"
    fake_nnunet.install(folder)
    use_folders_below(tmp_path, monkeypatch)
    write_raw(tmp_path / "nnUNet_raw")
    monkeypatch.setenv("FAKE_NNUNET", str(folder))
    monkeypatch.setattr(execution, "script", lambda name: str(folder / name))
    # The fake plans contain no network to check a trainer against; see test_run_checks.
    monkeypatch.setattr(run, "check_after_planning", lambda settings: None)
    return folder
