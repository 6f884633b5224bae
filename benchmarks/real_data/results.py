"""The results: one JSON file, which grows by a line for each finished piece and says what is done."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.locks import LockedError, file_lock

SECTIONS = ("setups", "pieces")
# Keys that every entry must have.
_KEYS = {
    "setups": ("seconds", "patient", "patch_size", "batch_size", "source", "note", "tolerance_mm"),
    "pieces": ("scores", "command_seconds"),
}
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
        for section, keys in _KEYS.items():
            for name, entry in found[section].items():
                missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
                if missing:
                    raise UserError(f"{self.file}: {name} has no {missing[0]}. {_FIX}")
        return found

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


def _text(content: dict[str, Any]) -> str:
    """JSON with a line for each entry, so that additions are lines, too."""
    parts = []
    for section in SECTIONS:
        lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in sorted(content[section].items())]
        parts.append(f'"{section}": {{\n' + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
