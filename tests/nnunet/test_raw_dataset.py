"""Datasets are found by their ID and by their name."""

from __future__ import annotations

from pathlib import Path

import pytest
from planning_example import NAME

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.raw_dataset import find_dataset


@pytest.mark.parametrize("spelling", [7, "7", "007", NAME])
def test_a_dataset_is_found_by_id_and_by_name(raw: Path, spelling: str | int) -> None:
    assert find_dataset(spelling) == (7, NAME)


@pytest.mark.parametrize("spelling", ["8", "Dataset007_Other", "Dataset008_Tiny", "tiny", ""])
def test_an_unknown_dataset_lists_the_known_ones(raw: Path, spelling: str) -> None:
    with pytest.raises(UserError, match=f"Known there: {NAME}"):
        find_dataset(spelling)


def test_without_any_dataset_the_message_says_what_to_do(folders: Path) -> None:
    with pytest.raises(UserError, match=r"no data set 7 in nnUNet_raw .*with factorizer-nnunet convert"):
        find_dataset(7)


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_two_names_of_one_id_are_reported(raw: Path, folders: Path, variable: str) -> None:
    (folders / variable / "Dataset007_Other").mkdir()
    for spelling in ("7", NAME):
        with pytest.raises(UserError, match=r"ID 7 belongs to several data sets.*Dataset007_Other, Dataset007_Tiny"):
            find_dataset(spelling)
