"""Where results go, as types of options: a missing folder is reported before hours are spent."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def output_folder(text: str) -> Path:
    """An existing folder to write in."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} does not exist: create the folder, or name another")
    _check_writable(path)
    return path


def output_folder_or_none(text: str) -> Path | None:
    """An existing folder to write in, or none if the text is empty."""
    return output_folder(text) if text else None


def output_file(text: str) -> Path:
    """A file in an existing folder."""
    path = Path(text)
    output_folder(str(path.parent))
    if path.exists():
        _check_writable(path)
    return path


def json_output(text: str) -> Path:
    """A JSON file in an existing folder, next to which its page and picture are written, but not over somebody's."""
    path = output_file(text)
    if path.suffix != ".json":
        raise argparse.ArgumentTypeError(f"{path} does not end with .json")
    if path.exists():
        return path
    for other in (path.with_suffix(".md"), path.with_suffix(".png")):
        if other.exists():
            raise argparse.ArgumentTypeError(
                f"{other} exists, but not {path}, and would be replaced: name another file, or delete {other} if an "
                "earlier run has written it"
            )
    return path


def _check_writable(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path} is read-only: change its permissions, or name another")
