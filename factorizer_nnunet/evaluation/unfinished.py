"""Scores of single cases, kept while a folder is scored: an interrupted evaluation goes on where it was."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from factorizer_nnunet import __version__
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.evaluation.case import RegionScores

CaseScores = dict[str, RegionScores]  # by region


@contextlib.contextmanager
def kept_until_written(out: Path) -> Iterator[Path]:
    """A place beside `out` for the scores of single cases; it goes when the block, which writes `out`, succeeds."""
    folder = out.with_name(f".{out.name}.unfinished")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def kept_or_computed(kept: Path, inputs: str, compute: Callable[[], CaseScores]) -> CaseScores:
    """What an earlier evaluation kept of a case if its inputs were the same, else what `compute` gives, then kept.

    Args:
        kept: a file for this case; folders above are made.
        inputs: all that the scores depend on, as text.
        compute: scores the case.
    """
    inputs = f"{__version__}\n{inputs}"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # damaged is as good as not there
        content = json.loads(kept.read_text(encoding="utf-8"))
        if content["inputs"] == inputs:
            return {
                region: RegionScores(found["values"], tuple((ml, hit) for ml, hit in found["lesions"]))
                for region, found in content["scores"].items()
            }
    scores = compute()
    content = {"inputs": inputs, "scores": {region: asdict(found) for region, found in scores.items()}}
    with contextlib.suppress(OSError):  # what cannot be kept is computed again
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(kept, json.dumps(content))
    return scores
