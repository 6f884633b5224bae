"""Checkpoints as torch wrote them before version 1.6 are judged without executing them; unreadable is not cut off."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.integrity import Completeness, completeness

CONTENT = {
    "network_weights": {"a": torch.ones(5, 7), "b": torch.arange(3), "c": torch.ones(4, dtype=torch.float16)},
    "optimizer_state": torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2, 2))]).state_dict(),
    "logging": {"mean_fg_dice": [np.float32(0.5)]},
    "names": ["x"] * 3,
    "set": {1, 2},
}


def test_an_older_checkpoint_is_complete_and_one_cut_anywhere_is_not(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint_final.pth"
    torch.save(CONTENT, file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    assert completeness(file) is Completeness.COMPLETE
    for length in (*range(1, 40), *range(40, len(content), 37), len(content) - 1):
        file.write_bytes(content[:length])
        assert completeness(file) is Completeness.CUT_OFF, length


def test_nothing_in_it_is_executed(tmp_path: Path) -> None:
    class Foreign:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "executed"),)

    file = tmp_path / "checkpoint_best.pth"
    torch.save({"network_weights": torch.ones(2), "more": Foreign()}, file, _use_new_zipfile_serialization=False)
    assert completeness(file) is Completeness.COMPLETE
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
@pytest.mark.parametrize("name", ["checkpoint_final.pth", "case.npz", "case.pkl", "plans.json"])
def test_a_file_that_cannot_be_read_is_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    file = tmp_path / name
    file.write_bytes(pickle.dumps({}))
    monkeypatch.setattr(Path, "open", broken)
    monkeypatch.setattr(Path, "read_text", broken)
    with pytest.raises(UserError, match=f"cannot read {file}.*{os.strerror(number)}"):
        completeness(file)


def test_links_in_a_circle_folders_and_pipes_are_reported(tmp_path: Path) -> None:
    (tmp_path / "circle.pth").symlink_to(tmp_path / "circle.pth")
    (tmp_path / "folder.pth").mkdir()
    os.mkfifo(tmp_path / "pipe.pth")
    for name in ("circle", "folder", "pipe"):
        with pytest.raises(UserError, match=f"{name}.pth"):
            completeness(tmp_path / f"{name}.pth")
