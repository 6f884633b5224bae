"""Incomplete files are recognised, wherever they were cut."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.nnunet.integrity import is_complete

scalars = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text('{}[]",:\\ ax', max_size=6)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
documents = st.dictionaries(st.text(max_size=3), values, min_size=1, max_size=3)
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)


@one_folder
@given(documents, st.sampled_from([None, 4]), st.data())
def test_a_json_file_cut_anywhere_counts_as_missing(
    tmp_path: Path, content: dict, indent: int | None, data: st.DataObject
) -> None:
    text = json.dumps(content, indent=indent)
    file = tmp_path / "file.json"
    file.write_text(text, encoding="utf-8")
    assert read_complete_json(file) == content and is_complete(file)
    file.write_text(text[: data.draw(st.integers(0, len(text) - 1))], encoding="utf-8")
    assert read_complete_json(file) is None and not is_complete(file)


def test_a_json_file_spoilt_by_an_edit_is_not_taken_for_a_half(tmp_path: Path) -> None:
    file = tmp_path / "plans.json"
    file.write_text('{"a": [1, 2,], "b": 3}')
    with pytest.raises(UserError, match=r"plans.json is not valid JSON.*Fix or remove it"):
        read_complete_json(file)
    file.write_text("[1]")
    with pytest.raises(UserError, match="a list instead of an object"):
        read_complete_json(file)


@one_folder
@given(st.data())
def test_a_checkpoint_cut_anywhere_is_incomplete(tmp_path: Path, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("weights", bytes(range(256)) * 4)
    content = buffer.getvalue()
    for name in ("checkpoint_final.pth", "case.npz"):
        file = tmp_path / name
        file.write_bytes(content)
        assert is_complete(file)
        file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        assert not is_complete(file)


def test_a_pickle_is_complete_with_its_last_byte(tmp_path: Path) -> None:
    file, content = tmp_path / "case.pkl", pickle.dumps({"spacing": [1.0, 2.0], "shape": (3, 4)})
    file.write_bytes(content)
    assert is_complete(file)
    for length in (0, 1, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        assert not is_complete(file)


def test_what_is_missing_or_empty_is_not_complete(tmp_path: Path) -> None:
    assert not is_complete(tmp_path / "no.b2nd")
    (tmp_path / "empty.b2nd").touch()
    assert not is_complete(tmp_path / "empty.b2nd")
