"""nnU-Net's pickles are read; those that would execute something are not."""

from __future__ import annotations

import functools
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.safe_pickle import check_pickles, read_pickle

PROPERTIES = {
    "sitk_stuff": {"spacing": (1.0, 1.0, 2.4), "origin": (0.0, -3.5, 7.0), "direction": (1.0,) * 9},
    "spacing": [np.float64(2.4), 1.0, 1.0],
    "shape_before_cropping": (7, 17, 20),
    "bbox_used_for_cropping": [[0, 7], [1, 17], [0, 20]],
    "class_locations": {1: np.array([[0, 1, 2, 3]]), (1, 2): [], 3: np.zeros((0, 4), np.int64)},
    "nibabel_stuff": {"original_affine": np.eye(4, dtype=np.float32)},
}


class Executes:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_properties_of_a_case_come_back(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "case.pkl"
    file.write_bytes(pickle.dumps(PROPERTIES, protocol))
    np.testing.assert_equal(read_pickle(file), PROPERTIES)


def test_nnunets_postprocessing_is_known(tmp_path: Path) -> None:
    file = tmp_path / "postprocessing.pkl"
    file.write_bytes(pickle.dumps(([remove_all_but_largest_component_from_segmentation], [{"labels_or_regions": [1]}])))
    check_pickles([file])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Executes(os.mkdir, "ran"), r"asks for posix\.mkdir"),
        (Executes(eval, "open('ran', 'w')"), r"asks for builtins\.eval"),
        (functools.partial(os.mkdir, "ran"), r"asks for functools\.partial"),
        (np.array([Executes(os.mkdir, "ran")], object), r"asks for posix\.mkdir"),
        (Executes(remove_all_but_largest_component_from_segmentation, "ran"), "is damaged"),
    ],
)
def test_nothing_else_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "case.pkl"
    file.write_bytes(pickle.dumps({**PROPERTIES, "extra": content}))
    other, cut = tmp_path / "other.pkl", tmp_path / "cut.pkl"
    other.write_bytes(file.read_bytes())
    cut.write_bytes(pickle.dumps(PROPERTIES)[:-2])
    with pytest.raises(UserError, match=f"case.pkl {message}.*Likewise other.pkl$"):
        check_pickles([file, other, cut])
    assert not (tmp_path / "ran").exists()


def test_a_named_pipe_is_reported_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "case.pkl")
    with pytest.raises(UserError, match=r"cannot read .*case.pkl: it is not a regular file"):
        check_pickles([tmp_path / "case.pkl"])
