"""Strata from a table of the release."""

from __future__ import annotations

from pathlib import Path

import pytest
from conversions import check_all_found, find
from trees import build_tree


def test_grades_come_from_the_table_of_brats_2020(tmp_path: Path) -> None:
    def strata() -> dict[str, str]:
        return {case.name: case.stratum for case in find("brats2020", tree.source).cases}

    tree = build_tree("brats2020", tmp_path / "source")
    assert strata() == {
        "BraTS20_Training_001": "HGG",
        "BraTS20_Training_002": "LGG",
        "BraTS20_Training_355": "",
        "BraTS20_Validation_001": "",
    }
    build_tree("brats2020", tmp_path / "upper", spelled=str.upper)
    assert {case.stratum for case in find("brats2020", tmp_path / "upper").cases} == {"HGG", "LGG", ""}
    (table,) = tree.source.rglob("name_mapping.csv")
    table.unlink()
    assert set(strata().values()) == {""}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"Grade,BraTS_2019_subject_ID\nHGG,BraTS19_CBICA_AAB_1\n", "it has no column BraTS_2020_subject_ID"),
        (b"", "it has no column BraTS_2020_subject_ID and no column Grade"),
        (b"Grade,BraTS_2020_subject_ID\n\xff\xfe,a\n", "codec can't decode"),
    ],
)
def test_a_table_that_cannot_be_used_is_a_note(content: bytes, text: str, tmp_path: Path) -> None:
    tree = build_tree("brats2020", tmp_path / "source")
    (table,) = tree.source.rglob("name_mapping.csv")
    table.write_bytes(content)
    found = find("brats2020", tree.source)
    check_all_found(found, tree)
    assert {case.stratum for case in found.cases} == {""}
    (note,) = (note for note in found.notes if note.path == table)
    assert str(note).startswith(f"{table}: cannot be used to balance the folds: ") and text in note.text
