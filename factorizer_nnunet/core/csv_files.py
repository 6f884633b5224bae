"""Tables as CSV files whose texts stay texts in a spreadsheet: a name such as =1+1 does not become a formula."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from factorizer_nnunet.core.errors import UserError

_QUOTE = "'"  # before a text, spreadsheets take it for a text
_UNSAFE = ("=", "+", "-", "@", "\t", "\r", "\n", _QUOTE)  # with the quote itself, so that reading is the inverse


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str | int | float]]) -> str:
    """A table; numbers are written so that they read back as the same number, NaN as nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    quoting_writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    for row in rows:
        cells = [_cell(value) for value in row]
        # Python does not quote a lone carriage return, although it would end the row for a reader.
        (quoting_writer if any("\r" in cell for cell in cells) else writer).writerow(cells)
    return text.getvalue()


def read_csv(path: Path, columns: Sequence[str], fix: str) -> list[dict[str, str]]:
    """The rows of a file of `csv_text`.

    Args:
        path: the file.
        columns: that it must have.
        fix: what the user can do about a damaged file; the last sentence of every error.

    Raises:
        UserError: the file cannot be read, or has other columns.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            found = list(csv.reader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}. {fix}") from error
    heads, *rows = found or [[]]
    if heads != list(columns):
        raise UserError(f"{path} has the columns {', '.join(heads)}, expected {', '.join(columns)}. {fix}")
    if wrong := next((row for row in rows if len(row) != len(columns)), None):
        raise UserError(f"{path} has a row of {len(wrong)} instead of {len(columns)} cells. {fix}")
    return [{name: cell.removeprefix(_QUOTE) for name, cell in zip(columns, row, strict=True)} for row in rows]


def _cell(value: str | int | float) -> str:
    if isinstance(value, str):
        return _QUOTE + value if value.startswith(_UNSAFE) else value
    return "" if isinstance(value, float) and math.isnan(value) else repr(value)
