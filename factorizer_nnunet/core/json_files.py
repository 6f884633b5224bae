"""JSON files read with errors that name the file and the fix."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.regular_files import status_of_regular


def load_json(path: Path, fix: str) -> Any:
    """Read a JSON file that must exist.

    Args:
        path: the file.
        fix: what the user can do about it; the last sentence of every error.

    Raises:
        UserError: the file cannot be read, or is not valid JSON.
    """
    try:
        status_of_regular(path)
        return _parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}. {fix}") from error
    except (ValueError, RecursionError) as error:  # also wrong bytes, and thousands of nested lists
        raise UserError(f"{path} is not valid JSON: {error}. {fix}") from error


def load_json_object(path: Path, fix: str) -> dict[str, Any]:
    """Read a JSON file that must exist and contain an object; arguments as for ``load_json``.

    Raises:
        UserError: the file cannot be read, is not valid JSON, or contains something else.
    """
    content = load_json(path, fix)
    if not isinstance(content, dict):
        raise UserError(f"{path} contains {_described(content)} instead of an object. {fix}")
    return content


def read_complete_json(path: Path, kind: type = dict) -> Any:
    """Read a JSON file that a killed command may have left out or cut off; None if it did.

    Args:
        path: the file.
        kind: what it must contain, ``dict`` or ``list``.

    Raises:
        UserError: the file is damaged in another way, for instance by an edit; it must not be replaced silently.
    """
    try:
        status_of_regular(path)
        text = path.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}. Fix or remove it") from error
    try:
        content = _parse(text)
    except json.JSONDecodeError as error:
        unfinished = error.pos >= len(text) or error.msg.startswith("Unterminated")
        if unfinished or not text.endswith(("}", "]")):
            return None
        raise UserError(f"{path} is not valid JSON: {error}. Fix or remove it") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or of nested lists
        raise UserError(f"{path} is not valid JSON: {error}. Fix or remove it") from error
    if not isinstance(content, kind):
        raise UserError(f"{path} contains {_described(content)} instead of {_described(kind())}. Fix or remove it")
    return content


def json_or_none(path: Path) -> Any:
    """Read a JSON file whose loss only costs time; None if it cannot be read or is not valid JSON."""
    try:
        status_of_regular(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError):
        return None


def without_nan(value: Any) -> Any:
    """A value for JSON, which has no NaN: null in its place."""
    if isinstance(value, Mapping):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def number_or_nan(value: Any) -> float:
    """The inverse of ``without_nan`` for a number.

    Raises:
        TypeError, ValueError: it is not a number.
    """
    return math.nan if value is None else float(value)


def _parse(text: str) -> Any:
    """``json.loads``, which silently keeps the last of several entries of one name; here that is a ValueError."""
    if text.startswith("\ufeff"):
        raise ValueError("it starts with a byte order mark, which nnU-Net cannot read; save it as UTF-8 without BOM")
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has {repeated!r} more than once")
    return content


def _described(content: Any) -> str:
    """The type of a JSON value, in JSON's words."""
    if content is None or isinstance(content, bool):
        return json.dumps(content)
    names: dict[type, str] = {dict: "an object", list: "a list", str: "text"}
    return names.get(type(content), "a number")
