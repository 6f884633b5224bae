"""The page and figure of the comparison of forms, from the results on disk."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.forms.table import FORMS
from benchmarks.forms.tasks import TASKS

STAGES = {"screening": "Screening: one seed", "final": "Finalists: three seeds"}


def results(folder: Path) -> list[dict]:
    """What the trainings of a stage left."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def mean_dice(folder: Path) -> dict[tuple[str, str], float]:
    """Mean foreground Dice of each form and task, over classes and seeds."""
    scores: dict[tuple[str, str], list[float]] = {}
    for result in results(folder):
        scores.setdefault((result["form"], result["task"]), []).append(statistics.mean(result["dice"]))
    return {key: statistics.mean(values) for key, values in scores.items()}


def write_report(root: Path, measured: Mapping, docs: Path) -> None:
    """Write ``forms.md``, ``forms.json`` and ``forms.png`` into ``docs``."""
    docs.mkdir(parents=True, exist_ok=True)
    stages = {stage: results(root / stage) for stage in STAGES}
    (docs / "forms.json").write_text(json.dumps({"timing": measured, "runs": stages}))
    (docs / "forms.md").write_text(_page(stages, measured))
    _figure(stages, docs / "forms.png")


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
    for stage, heading in STAGES.items():
        if stages[stage]:
            lines += [f"## {heading}", "", *_table(stages[stage], measured["cost"]), ""]
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
    for task in TASKS:
        scores = {
            form: [statistics.mean(run["dice"]) for run in finals if (run["form"], run["task"]) == (form, task)]
            for form in ("default", "no NMF")
        }
        if any(len(values) < 2 for values in scores.values()):
            return []
        difference = statistics.mean(scores["default"]) - statistics.mean(scores["no NMF"])
        error = math.sqrt(sum(statistics.variance(values) / len(values) for values in scores.values()))
        lines.append(f"* {task}: {difference:+.3f} ± {error:.3f}")
    return [*lines, ""]


def _table(runs: list[dict], cost: Mapping[str, Mapping[str, float]]) -> list[str]:
    header = ["question", "form", "parameters"]
    for task in TASKS:
        header += [f"{task}: cost", "iterations", "Dice"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for form in FORMS:
        own = [run for run in runs if run["form"] == form]
        if not own:
            continue
        cells = [FORMS[form].question, form, f"{own[0]['parameters'] / 1e6:.2f} M"]
        for task in TASKS:
            scores = [statistics.mean(run["dice"]) for run in own if run["task"] == task]
            iterations = next((str(run["iterations"]) for run in own if run["task"] == task), "")
            cells += [f"{cost[task][form]:.2f}", iterations, _mean_and_spread(scores)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _mean_and_spread(scores: list[float]) -> str:
    if not scores:
        return ""
    spread = f" ± {statistics.stdev(scores):.3f} (n = {len(scores)})" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.3f}{spread}"


def _figure(stages: Mapping[str, list[dict]], target: Path) -> None:
    """One dot for each training: screening hollow, finalists filled."""
    forms = [form for form in FORMS if any(run["form"] == form for runs in stages.values() for run in runs)]
    figure, axes = plt.subplots(1, len(TASKS), figsize=(11, 0.28 * len(forms) + 1), sharey=True, layout="constrained")
    for axis, task in zip(axes, TASKS, strict=True):
        for stage, runs in stages.items():
            points = [(statistics.mean(run["dice"]), forms.index(run["form"])) for run in runs if run["task"] == task]
            face = "none" if stage == "screening" else "#1b7837"
            axis.scatter(
                *zip(*points, strict=True) if points else ([], []), facecolors=face, edgecolors="#1b7837", label=stage
            )
        axis.set(title=task, xlabel="mean foreground Dice, equal training time")
        axis.set_yticks(range(len(forms)), forms)
        axis.grid(alpha=0.3)
    axes[0].invert_yaxis()
    axes[0].legend(fontsize=8)
    figure.savefig(target, dpi=110)
    plt.close(figure)
