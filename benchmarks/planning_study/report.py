"""The page and figure of the study of the planner's choices, from the results on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.forms.results import STAGES, difference_and_error, dots, results, scores, stage_tables
from benchmarks.planning_study.table import PLANNING_STUDY

TASK = "hippocampus"


def write_report(root: Path, measured: Mapping, docs: Path) -> None:
    """Write ``planning_study.md``, ``planning_study.json`` and ``planning_study.png`` into ``docs``."""
    docs.mkdir(parents=True, exist_ok=True)
    stages = {stage: results(root / stage) for stage in STAGES}
    (docs / "planning_study.json").write_text(json.dumps({"timing": measured, "runs": stages}))
    (docs / "planning_study.md").write_text(_page(stages, measured))
    dots(PLANNING_STUDY, stages, docs / "planning_study.png", lowest=0.7)


def _page(stages: Mapping[str, list[dict]], measured: Mapping) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    own_cost = measured["cost"][TASK][PLANNING_STUDY.reference]
    lines = [
        "# The planner's choices against alternatives",
        "",
        "Written by `python -m benchmarks.planning_study DATA --root WORK --finalists 1`; DATA: Medical Segmentation",
        "Decathlon, Task04 (Simpson et al., arXiv 1902.09063), 100 cases of real MRI, every fifth held out.",
        "[default_form.md](default_form.md#the-planners-choices) says what follows.",
        "",
        "*Planned* is the network that the planner made of these data for a memory target of 0.14 GB: patches of",
        "32 × 40 × 32 voxels of 1 mm, batch 2, four stages of 32, 64, 128 and 256 channels, one block each in encoder",
        "and decoder, the NMF from the third stage on in windows of 8 with shifts of 0 and a half. Every other form",
        "changes in it what its name says.",
        "",
        "All train for equal time: *cost* is the CPU time of an iteration over that of the planned network, in turns",
        "with it in one process on one thread, the median of neighbouring pairs; the number of iterations follows.",
        f"The planned network beside itself gave {own_cost:.2f}. Learning rate, schedule, loss and deep supervision",
        "are the trainer's; augmentation is light, and the same for all. *Dice* is the mean over both foreground",
        "classes and the held-out cases after the last iteration; ± is the standard deviation over seeds.",
        f"Machine: {measured['machine']}, shared with other work; {versions}.",
        "",
    ]
    lines += stage_tables(PLANNING_STUDY, stages, measured["cost"])
    lines += _differences(stages["final"])
    return "\n".join([*lines, "![Dice of every form](planning_study.png)", ""])


def _differences(finals: Sequence[Mapping]) -> list[str]:
    """Finalists minus the planned network, where there are at least two seeds of both."""
    planned = scores(finals, PLANNING_STUDY.reference, TASK)
    lines = ["## Finalists minus planned", "", "With the standard error of the difference:", ""]
    for form in PLANNING_STUDY.forms:
        own = scores(finals, form, TASK)
        if form != PLANNING_STUDY.reference and min(len(own), len(planned)) > 1:
            difference, error = difference_and_error(own, planned)
            lines.append(f"* {form}: {difference:+.3f} ± {error:.3f}")
    return [*lines, ""] if len(lines) > 4 else []
