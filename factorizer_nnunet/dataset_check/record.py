"""What a check found about each file, kept next to the preprocessed data: a second check reads no voxels."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.file_stamps import Stamp, has_size_and_time
from factorizer_nnunet.core.json_files import json_or_none
from factorizer_nnunet.dataset_check.facts import FileFacts
from factorizer_nnunet.imaging.grid import Grid

RECORD_FILE = "factorizer_data_check.json"  # in the dataset's folder in nnUNet_preprocessed
_VERSION = 2


@dataclass(frozen=True)
class Known:
    """A file that has been read."""

    stamp: Stamp
    facts: FileFacts


def read_record(file: Path, reader: str) -> dict[str, Known]:
    """What is known of files, by their path; nothing where the record is missing, damaged or of another reader."""
    content = json_or_none(file)
    try:
        if (content["version"], content["reader"]) != (_VERSION, reader):
            return {}
        return {path: _known(entry) for path, entry in content["files"].items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}  # files are read again then


def recorded_stamps(file: Path) -> dict[Path, Stamp]:
    """The stamps in a record, of the files that still have their size and time; empty without a readable record."""
    content = json_or_none(file)
    try:
        stamps = {Path(path): Stamp(**entry["stamp"]) for path, entry in content["files"].items()}
    except (AttributeError, KeyError, TypeError):
        return {}
    return {path: stamp for path, stamp in stamps.items() if has_size_and_time(path, stamp)}


def write_record(file: Path, reader: str, known: Mapping[str, Known]) -> None:
    """Write the record atomically."""
    files = {path: _entry(one) for path, one in known.items()}
    write_text_atomically(file, json.dumps({"version": _VERSION, "reader": reader, "files": files}, indent=1))


def _entry(known: Known) -> dict[str, Any]:
    usual = dataclasses.asdict(FileFacts())
    facts = {name: value for name, value in dataclasses.asdict(known.facts).items() if value != usual[name]}
    return {"stamp": dataclasses.asdict(known.stamp), "facts": facts}


def _known(entry: Mapping[str, Any]) -> Known:
    facts = {name: _with_tuples(value) for name, value in entry["facts"].items()}
    if "values" in facts:
        facts["values"] = {int(value): int(count) for value, count in facts["values"].items()}
    if "grid" in facts:
        facts["grid"] = Grid(**{name: tuple(value) for name, value in facts["grid"].items()})
    return Known(Stamp(**entry["stamp"]), FileFacts(**facts))


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
