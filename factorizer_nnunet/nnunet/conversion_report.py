"""What the conversion of a challenge release knows of a raw dataset, from the report that it left there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.json_files import json_or_none

REPORT_FILE = "conversion_report.json"  # in the dataset's folder in nnUNet_raw


def patients_of(raw: Path) -> dict[str, str]:
    """The patient of each case; empty for datasets that were not converted, or whose report is damaged."""
    return {name: patient for name, case in _cases(raw) if isinstance(patient := case.get("patient"), str)}


def constant_images(raw: Path) -> frozenset[str]:
    """Names of image files that are constant, which conversion has reported and accepted."""
    found = set()
    for _, case in _cases(raw):
        for image in case.get("images", ()):
            intensities = image.get("intensity_range") if isinstance(image, dict) else None
            is_constant = isinstance(intensities, list) and len(intensities) == 2 and intensities[0] == intensities[1]
            if is_constant and isinstance(file := image.get("file"), str):  # absent channels may have no file
                found.add(Path(file).name)
    return frozenset(found)


def _cases(raw: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    content = json_or_none(raw / REPORT_FILE)
    cases = content.get("cases") if isinstance(content, dict) else None
    if isinstance(cases, dict):
        yield from ((name, case) for name, case in cases.items() if isinstance(case, dict))
