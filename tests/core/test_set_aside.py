"""What is set aside keeps its content and never replaces anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from factorizer_nnunet.core.set_aside import INCOMPLETE, set_aside


@pytest.mark.parametrize("name", ["checkpoint_final.pth", "ü" * 127])
def test_each_attempt_has_a_name_of_its_own(tmp_path: Path, name: str) -> None:
    for text in "abc":
        (tmp_path / name).write_text(text)
        set_aside(tmp_path / name, INCOMPLETE)
    found = sorted(tmp_path.iterdir())
    assert [path.read_text() for path in found] == ["a", "b", "c"]
    assert [path.name.rpartition(".")[2] for path in found] == ["incomplete-1", "incomplete-2", "incomplete-3"]
