"""Tables as CSV: texts come back as they were, and none is a formula."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorizer_nnunet.core.csv_files import csv_text, read_csv
from factorizer_nnunet.core.errors import UserError

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1")
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))


def test_no_text_is_a_formula() -> None:
    rows = list(csv.reader(io.StringIO(csv_text(["name", "value"], [(name, -2.5) for name in FORMULAS]), newline="")))
    assert [row[0] for row in rows[1:]] == [f"'{name}" for name in FORMULAS]
    assert all(row[1] == "-2.5" for row in rows[1:])


@given(st.lists(st.tuples(texts, st.floats(allow_infinity=False))))
def test_tables_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float]]) -> None:
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    file.write_text(csv_text(["name", "value"], rows), encoding="utf-8", newline="")
    found = read_csv(file, ["name", "value"], "Fix it")
    assert [row["name"] for row in found] == [name for name, _ in rows]
    assert [float(row["value"] or "nan") for row in found] == [pytest.approx(value, nan_ok=True) for _, value in rows]


@pytest.mark.parametrize(
    "content", [b"", b"a\n", b"name,value\nx\n", b'name,value\n"x', b"\xff", b"name,value\nx,1,2\n"]
)
def test_damaged_tables_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"a.csv.*Fix it"):
        read_csv(tmp_path / "a.csv", ["name", "value"], "Fix it")


def test_nan_is_nothing() -> None:
    assert csv_text(["a"], [(math.nan,), (0.1,)]) == 'a\n""\n0.1\n'
