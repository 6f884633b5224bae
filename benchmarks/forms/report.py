"""The page and figure of the comparison of forms, from the results on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from benchmarks.forms.results import STAGES, difference_and_error, dots, results, scores, stage_tables
from benchmarks.forms.table import FORMS_STUDY


def write_report(root: Path, measured: Mapping, docs: Path) -> None:
    """Write ``forms.md``, ``forms.json`` and ``forms.png`` into ``docs``."""
    docs.mkdir(parents=True, exist_ok=True)
    stages = {stage: results(root / stage) for stage in STAGES}
    (docs / "forms.json").write_text(json.dumps({"timing": measured, "runs": stages}))
    (docs / "forms.md").write_text(_page(stages, measured))
    dots(FORMS_STUDY, stages, docs / "forms.png")


def _page(stages: Mapping[str, list[dict]], measured: Mapping) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    lines = [
        "# Which form of the network learns most in the same time",
        "",
        "Written by `python -m benchmarks.forms DATA --root WORK`; DATA: Medical Segmentation Decathlon, Task04",
        "(Simpson et al., arXiv 1902.09063), 100 cases, every fifth for validation. The second task, *far context*, is",
        "synthetic: bright and dark spots at one end of the volume, of which those are lesions that are like a cue at",
        "the other end, 32 voxels or more away (`benchmarks/forms/tasks.py`).",
        "",
        "Every form has three stages of 32, 64 and 128 channels and trains for the time that nnU-Net's U-Net, with its",
        "recipe, takes for the number of iterations in the first row; *cost* is the CPU time of an iteration over that",
        "of the U-Net's, both on one thread, the median of neighbouring pairs. Costs are uncertain by some 10 %, as",
        "those of the rows under *recipe* show, whose networks are the default's. The trainings are short; with one",
        "seed, a few hundredths of Dice are noise. Dice: mean over foreground classes and validation cases, which also",
        "chose the finalists.",
        "",
        "The default has instance norm, a 3×3×3 depthwise convolution at the entry of every block, and the NMF from",
        "the third stage on, here at the lowest resolution only; every other form changes in it what its name says.",
        "*Published* has LayerNorm, no depthwise convolution, the NMF at every resolution in windows that go on at the",
        "opposite face, and a learned position.",
        f"Machine: {measured['machine']}; {versions}.",
        "",
    ]
    lines += stage_tables(FORMS_STUDY, stages, measured["cost"])
    lines += _earnings(stages["final"])
    return "\n".join([*lines, "![Dice of every form](forms.png)", ""])


def _earnings(finals: list[dict]) -> list[str]:
    """What the NMF adds to the same network without it, at equal time; nothing before both are finalists."""
    lines = [
        "## What the NMF earns",
        "",
        "Default minus *no NMF*, finalists, with the standard error of the difference:",
        "",
    ]
    for task in FORMS_STUDY.patches:
        default, without = (scores(finals, form, task) for form in ("default", "no NMF"))
        if len(default) < 2 or len(without) < 2:
            return []
        difference, error = difference_and_error(default, without)
        lines.append(f"* {task}: {difference:+.3f} ± {error:.3f}")
    return [*lines, ""]
