"""The page and figure of the study of the planner's choices, from the results on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_report(root: Path, measured: Mapping, docs: Path) -> None:
    """Write ``planning_study.md``, ``planning_study.json`` and ``planning_study.png`` into ``docs``."""
