"""JSON files that people edit: an entry written twice is refused, not dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json, read_complete_json


@pytest.mark.parametrize("read", [lambda path: load_json(path, "Correct it"), read_complete_json])
def test_an_entry_written_twice_is_refused(tmp_path: Path, read) -> None:  # noqa: ANN001 - one of two functions
    file = tmp_path / "dataset.json"
    file.write_text('{"labels": {"background": 0, "edema": 1, "edema": 2}}')
    with pytest.raises(UserError, match=r"dataset\.json is not valid JSON: an object has 'edema' more than once"):
        read(file)
    file.write_text('{"labels": {"background": 0, "edema": 1}, "others": [{"edema": 1}, {"edema": 1}]}')
    assert read(file)["labels"] == {"background": 0, "edema": 1}


def test_a_byte_order_mark_is_named(tmp_path: Path) -> None:
    file = tmp_path / "dataset.json"
    file.write_text('{"labels": {}}', encoding="utf-8-sig")
    with pytest.raises(UserError, match="byte order mark, .* save it as UTF-8 without BOM"):
        load_json(file, "Correct it")
