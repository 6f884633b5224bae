"""The summary as Markdown: Dice, the best configuration, what failed and why, the cost of each step, the commands."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.running.summary import DONE, FAILED


def summary_markdown(summary: Mapping[str, Any]) -> str:
    """The page of what ``summary.summarize`` returns."""
    parts = [
        f"# Cross-validation of {summary['dataset']}" + ("" if summary["name"] is None else f", run {summary['name']}"),
        _outcome(summary),
        *_failures(summary["steps"]),
        "## Dice of the validation cases",
        "Mean over the cases of each fold; the last row of a model over the cases of all folds.",
        _dice_table(summary["models"]),
        *_repeats(summary["repeats"]),
        *_best(summary["best"]),
        *_test(summary["test"]),
        "## Steps",
        "Wall time of all attempts except those that were killed; peak memory of the largest process, at least that of "
        "the run itself; GPU memory as reported by the driver.",
        _steps_table(summary["steps"]),
        "## The same with nnU-Net's own commands",
        "```bash\n" + "\n".join(command for step in summary["steps"] for command in step["commands"]) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _outcome(summary: Mapping[str, Any]) -> str:
    done = sum(step["state"] == DONE for step in summary["steps"])
    return f"{done} of {len(summary['steps'])} steps are done."


def _failures(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    failed = [step for step in steps if step["state"] == FAILED]
    if not failed:
        return []
    lines = [f"* `{step['name']}`: {step['why']}  \n  log: `{step['log']}`" for step in failed]
    return [
        "## What failed",
        "Fix the cause and run the same command again; finished steps are kept.",
        "\n".join(lines),
    ]


def _dice_table(models: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (f"`{model['name']}`", fold, dice)
        for model in models
        for fold, dice in (*model["folds"].items(), ("all", model["all_folds"]))
        if dice is not None
    ]
    if not rows:
        return "No fold is done."
    regions = list(dict.fromkeys(region for _, _, dice in rows for region in dice))
    return markdown_table(
        [["model", "fold", *regions], *([model, fold, *_cells(dice, regions)] for model, fold, dice in rows)]
    )


def _repeats(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """How much trainings of the same model differ, and which differences between models are not larger."""
    rows = [[f"`{name}`", f"{dice:.4f}"] for model in models for name, dice in model["dice"].items()]
    if not rows:
        return []
    spreads = [model for model in models if model["spread"] is not None and model["model"] in model["dice"]]
    lines = [f"* spread of `{model['model']}`: {model['spread']:.4f}" for model in spreads]
    for one, other in itertools.combinations(spreads, 2):
        difference = abs(one["dice"][one["model"]] - other["dice"][other["model"]])
        if difference <= max(one["spread"], other["spread"]):
            lines.append(
                f"* ≈ `{one['model']}` and `{other['model']}` differ by {difference:.4f}, not more than trainings of "
                "the same model do: it may be chance"
            )
    lead = "Mean Dice over the folds. The spread is the largest difference between two trainings of a model."
    return ["## Repeated trainings", lead, markdown_table([["training", "mean Dice"], *rows]), "\n".join(lines)]


def _best(best: Mapping[str, Any] | None) -> list[str]:
    if best is None:
        return []
    gain = best["gain_of_ensemble"]
    lines = [f"* chosen: {' with '.join(f'`{name}`' for name in best['models'])}, Dice {best['dice']:.4f}"]
    if best["rules"] is None:
        lines.append(f"* after postprocessing: {best['dice_after_postprocessing']:.4f}")
    else:
        lines.append(f"* postprocessed by the rules in `{best['rules']}`, in place of nnU-Net's")
    if gain is not None:
        lines.append(
            f"* best ensemble of two against the best single model, `{best['best_single_model']}`: {gain:+.4f}"
        )
    rows = [[f"`{name}`", f"{dice:.4f}"] for name, dice in sorted(best["all"].items(), key=lambda item: -item[1])]
    return ["## The best configuration", "\n".join(lines), markdown_table([["model or ensemble", "mean Dice"], *rows])]


def _test(test: Mapping[str, Any] | None) -> list[str]:
    if test is None:
        return []
    parts = ["## Test images", f"Segmentations of `{test['images']}` are in `{test['output']}`."]
    if test["dice"] is not None:
        parts.append(markdown_table([list(test["dice"]), _cells(test["dice"], list(test["dice"]))]))
    return parts


def _steps_table(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = [["step", "state", "attempts", "time", "memory", "GPU memory"]]
    for step in steps:
        seconds = str(timedelta(seconds=round(step["seconds"]))) if step["attempts"] else ""
        memory, gpu = (_gigabytes(step[key]) for key in ("memory_gb", "gpu_memory_gb"))
        rows.append([step["name"], step["state"], str(step["attempts"] or ""), seconds, memory, gpu])
    return markdown_table(rows)


def _gigabytes(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} GB"


def _cells(dice: Mapping[str, float], regions: Sequence[str]) -> list[str]:
    return [f"{dice[region]:.4f}" if region in dice else "" for region in regions]
