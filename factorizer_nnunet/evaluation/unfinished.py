"""Scores of single cases, saved while many are scored, so that an interrupted evaluation resumes where it stopped."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from factorizer_nnunet import __version__
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.json_files import json_or_none
from factorizer_nnunet.evaluation.case import CaseScores, RegionScores


@contextlib.contextmanager
def saved_until_written(out: Path) -> Iterator[Path]:
    """A folder next to `out` for the scores of single cases, removed when the block, which writes `out`, succeeds."""
    folder = out.with_name(f".{out.name}.unfinished")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def stamp_of(file: Path) -> tuple[str, int, int]:
    """Path, size and modification time of a file, which show whether it has changed."""
    status = file.stat()
    return str(file.resolve()), status.st_size, status.st_mtime_ns


def saved_or_computed(file: Path, inputs: str, compute: Callable[[], CaseScores]) -> CaseScores:
    """The scores that an earlier evaluation saved of a case if its inputs were the same, else computed and saved.

    Args:
        file: where the scores of this case are saved; missing parent folders are created.
        inputs: everything that the scores depend on, as text.
        compute: scores the case.
    """
    inputs = f"{__version__}\n{inputs}"
    content = json_or_none(file)
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):  # a damaged file is treated as missing
        if content["inputs"] == inputs:
            return {
                region: RegionScores(saved["values"], tuple((ml, hit) for ml, hit in saved["lesions"]))
                for region, saved in content["scores"].items()
            }
    scores = compute()
    content = {"inputs": inputs, "scores": {region: asdict(found) for region, found in scores.items()}}
    with contextlib.suppress(OSError):  # if it cannot be saved, the case is scored again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(file, json.dumps(content))
    return scores
