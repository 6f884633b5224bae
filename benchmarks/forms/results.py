"""Results of a study on disk, and the tables and figures that its page is made of."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.forms.study import Study

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


def scores(runs: Sequence[Mapping], form: str, task: str) -> list[float]:
    """Mean foreground Dice of each training of a form on a task."""
    return [statistics.mean(run["dice"]) for run in runs if (run["form"], run["task"]) == (form, task)]


def stage_tables(
    study: Study, stages: Mapping[str, Sequence[Mapping]], cost: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """Markdown lines with a heading and a table for each of STAGES that has runs."""
    lines = []
    for stage, heading in STAGES.items():
        if stages[stage]:
            lines += [f"## {heading}", "", *_table(study, stages[stage], cost), ""]
    return lines


def _table(study: Study, runs: Sequence[Mapping], cost: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Markdown lines with a row for each form that has runs."""
    header = ["question", "form", "parameters"]
    for task in study.patches:
        header += [f"{task}: cost", "iterations", "Dice"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for form in study.forms:
        own = [run for run in runs if run["form"] == form]
        if not own:
            continue
        cells = [study.forms[form].question, form, f"{own[0]['parameters'] / 1e6:.2f} M"]
        for task in study.patches:
            iterations = next((str(run["iterations"]) for run in own if run["task"] == task), "")
            cells += [f"{cost[task][form]:.2f}", iterations, mean_and_spread(scores(own, form, task))]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean, standard deviation and number of values; empty without any."""
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3f} (n = {len(values)})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def difference_and_error(values: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Difference of two means and its standard error, for at least two values each."""
    error = math.sqrt(sum(statistics.variance(group) / len(group) for group in (values, others)))
    return statistics.mean(values) - statistics.mean(others), error


def dots(study: Study, stages: Mapping[str, Sequence[Mapping]], target: Path, lowest: float = 0.0) -> None:
    """A figure with one dot for each training: screening hollow, finalists filled; below ``lowest`` a number."""
    forms = [form for form in study.forms if any(run["form"] == form for runs in stages.values() for run in runs)]
    tasks = list(study.patches)
    size = (3 + 4 * len(tasks), 0.28 * len(forms) + 1)
    figure, axes = plt.subplots(1, len(tasks), figsize=size, sharey=True, layout="constrained", squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for stage, runs in stages.items():
            points = [(statistics.mean(run["dice"]), forms.index(run["form"])) for run in runs if run["task"] == task]
            face = "none" if stage == "screening" else "#1b7837"
            axis.scatter(
                *zip(*points, strict=True) if points else ([], []), facecolors=face, edgecolors="#1b7837", label=stage
            )
            for value, row in points:
                if value < lowest:
                    axis.annotate(
                        f"← {value:.2f}", (lowest, row), xytext=(3, 0), textcoords="offset points", va="center"
                    )
        if lowest:
            axis.set_xlim(left=lowest)
        axis.set(title=task, xlabel="mean foreground Dice, equal training time")
        axis.set_yticks(range(len(forms)), forms)
        axis.grid(alpha=0.3)
    axes[0, 0].invert_yaxis()
    axes[0, 0].legend(fontsize=8)
    figure.savefig(target, dpi=110)
    plt.close(figure)
