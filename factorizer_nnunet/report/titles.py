"""Short names for results: what tells one folder from the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from factorizer_nnunet.report.folders import ENSEMBLE


def titles_for(folders: Sequence[Path]) -> list[str]:
    """A short name for each folder: what tells it from the others."""
    parts = [_parts(folder) for folder in folders]
    width = max(map(len, parts))
    shown = [
        place for place in range(width)
        if len({names[place] if place < len(names) else "" for names in parts}) > 1
    ] or [0]  # fmt: skip
    titles = [", ".join(names[place] for place in shown if place < len(names) and names[place]) for names in parts]
    return [title or ", ".join(names) for title, names in zip(titles, parts, strict=True)]


def _parts(folder: Path) -> list[str]:
    """The trainer, plans and configuration that a folder of nnU-Net is named after, or its name."""
    for path in (folder, *folder.parents[:2]):
        if path.name.startswith(ENSEMBLE):
            members = path.name.removeprefix(ENSEMBLE).split("___")[:2]
            return [
                "ensemble of " + " and ".join(member.split("__")[0] for member in members),
                *[""] * 2,
                _note(folder),
            ]
        if path.name.count("__") == 2:
            return [*path.name.split("__"), "" if path == folder else _note(folder)]
    return [folder.name, "", "", folder.parent.name]


def _note(folder: Path) -> str:
    return "postprocessed" if folder.name == "postprocessed" else ""
