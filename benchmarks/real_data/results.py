"""The results: one JSON file, which grows by a line for each finished piece and says what is done."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.locks import LockedError, file_lock

SECTIONS = ("setups", "pieces")
_NUMBER = (int, float)
_TEXT = (str,)
_SCORE = (*_NUMBER, type(None))
# Keys that every entry must have, with the types of their values.
_OF_SETUPS = {
    **{"seconds": (dict,), "patient": (str, type(None)), "patch_size": (list,), "batch_size": _NUMBER},
    **{"source": _TEXT, "note": _TEXT, "tolerance_mm": _NUMBER},
}
_OF_CORRUPTED = {"scores": (dict,), "command_seconds": _NUMBER}
_OF_TRAININGS = {**_OF_CORRUPTED, "iterations": _NUMBER, "seconds": _NUMBER, "parameters": _NUMBER}
_FIX = "Correct it, restore it from git, or delete it to begin again"


class Results:
    """Setups and pieces by name; several processes may add to one file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def page(self) -> Path:
        """The page next to the file."""
        return self.file.with_suffix(".md")

    def read(self) -> dict[str, Any]:
        """All results up to now.

        Raises:
            UserError: the file cannot be read, or contains something else.
        """
        if not self.file.exists():
            return {section: {} for section in SECTIONS}
        found = load_json_object(self.file, _FIX)
        if found.keys() != set(SECTIONS) or not all(isinstance(entries, dict) for entries in found.values()):
            raise UserError(f"{self.file} does not have the objects {' and '.join(SECTIONS)} alone. {_FIX}")
        for name, entry in found["setups"].items():
            self._check(name, entry, _OF_SETUPS)
        for name, entry in found["pieces"].items():
            is_corrupted = name.endswith("/corrupted")
            self._check(name, entry, _OF_CORRUPTED if is_corrupted else _OF_TRAININGS)
            if not _are_scores(entry["scores"], 3 if is_corrupted else 2):
                raise UserError(f"{self.file}: {name} has damaged scores. {_FIX}")
        return found

    def _check(self, name: str, entry: Any, keys: Mapping[str, tuple[type, ...]]) -> None:
        for key, types in keys.items():
            if not isinstance(entry, dict) or key not in entry:
                raise UserError(f"{self.file}: {name} has no {key}. {_FIX}")
            if not isinstance(entry[key], types):
                raise UserError(f"{self.file}: {key} of {name} is {json.dumps(entry[key])[:40]}. {_FIX}")

    def add(self, section: str, name: str, values: dict[str, Any]) -> None:
        """Add a finished piece or a setup; the file is complete at any time."""
        lock = self.file.with_name(f".{self.file.name}.lock")
        while True:
            try:
                with file_lock(lock, "in use"):
                    content = self.read()
                    content[section][name] = values
                    write_text_atomically(self.file, _text(content))
                    lock.unlink(missing_ok=True)
                return
            except LockedError:  # another process adds its results, which takes a moment
                time.sleep(0.1)


def _are_scores(scores: Any, depth: int) -> bool:
    """Whether values are Dice and surface Dice, or null, by region, case and, of corrupted images, corruption."""
    if depth:
        return isinstance(scores, dict) and all(_are_scores(own, depth - 1) for own in scores.values())
    return isinstance(scores, list) and len(scores) == 2 and all(isinstance(one, _SCORE) for one in scores)


def _text(content: dict[str, Any]) -> str:
    """JSON with a line for each entry, so that additions are lines, too."""
    parts = []
    for section in SECTIONS:
        lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in sorted(content[section].items())]
        parts.append(f'"{section}": {{\n' + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
