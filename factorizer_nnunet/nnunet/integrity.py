"""Whether a file that a killed command may have left is whole, told from its end, without reading all of it."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.names import SPLITS_FILE

_PICKLE_STOP = b"."


def read_json(path: Path, kind: type = dict) -> Any:
    """What a JSON file holds; None if it is missing or was cut off while it was written.

    Args:
        kind: what it must hold, ``dict`` or ``list``.

    Raises:
        UserError: it is damaged in another way, as by an edit; then it must not be made anew unseen.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}. Mend or remove it") from error
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        unfinished = error.pos >= len(text) or error.msg.startswith("Unterminated")
        if unfinished or not text.endswith(("}", "]")):
            return None
        raise UserError(f"{path} is not valid JSON: {error}. Mend or remove it") from error
    if not isinstance(content, kind):
        raise UserError(f"{path} holds {type(content).__name__} instead of {kind.__name__}. Mend or remove it")
    return content


def is_whole(path: Path) -> bool:
    """Whether a file is there and has its end, for the formats whose end can be told; others must not be empty."""
    try:
        if path.suffix in (".pth", ".npz"):  # zip files; their directory is written last
            return zipfile.is_zipfile(path)
        if path.suffix == ".pkl":
            with path.open("rb") as stream:
                stream.seek(-1, os.SEEK_END)
                return stream.read() == _PICKLE_STOP
        if path.suffix == ".json":
            return read_json(path, list if path.name == SPLITS_FILE else dict) is not None
        return path.stat().st_size > 0
    except OSError:  # missing, or empty where an end was sought
        return False


def preprocessed_whole(folder: Path, case: str) -> bool:
    """Whether a case has its data, segmentation and, written last, properties in a folder of preprocessed data."""
    data = [folder / f"{case}.b2nd", folder / f"{case}_seg.b2nd"]
    if not data[0].exists():
        data = [folder / f"{case}.npz"]  # nnU-Net's older format
    return is_whole(folder / f"{case}.pkl") and all(is_whole(file) for file in data)


def newest(paths: Iterable[Path]) -> float:
    """The latest time of change among files, in seconds since the epoch; 0 if none is there."""
    times = [0.0]
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            times.append(path.stat().st_mtime)
    return max(times)


def oldest(paths: Iterable[Path]) -> float:
    """The earliest time of change among files that are all there."""
    return min((path.stat().st_mtime for path in paths), default=0.0)
