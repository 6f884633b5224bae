"""The folders and the data set of ``planning_example`` for every test here."""

from multiprocessing.pool import ThreadPool

import pytest
from nnunetv2.utilities import utils
from planning_example import folders, raw

__all__ = ["folders", "raw"]


@pytest.fixture(autouse=True)
def _threads_list_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net lists the files of a data set with twelve processes, which take a second or two to start."""
    monkeypatch.setattr(utils, "Pool", ThreadPool)
