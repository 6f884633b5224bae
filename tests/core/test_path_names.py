"""No name from a file leads outside the folder it is joined to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.path_names import component_problem, path_component

BAD = [
    "",
    " ",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc/passwd",
    "a\\b",
    "a\0b",
    "a\nb",
    "x" * 256,
    "ä" * 128,
    "\udc80",
    None,
    3,
    ["a"],
]


@pytest.mark.parametrize("name", BAD)
def test_names_that_are_refused(name: object) -> None:
    with pytest.raises(UserError, match=r"^plans\.json: .*Use a plain name"):
        path_component(name, "plans.json")


@pytest.mark.parametrize("name", ["case_01", "nnUNetPlans_3d_fullres", "été", "a b", "..a", "x" * 255])
def test_names_that_are_accepted(name: str) -> None:
    assert path_component(name, "plans.json") == name


@given(st.text())
def test_an_accepted_name_stays_in_its_folder(name: str) -> None:
    if component_problem(name) is None:
        folder = Path("/some/folder")
        assert (folder / name).parent == folder
        assert (folder / name).name == name
