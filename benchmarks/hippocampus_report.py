"""The page and figure of the hippocampus benchmark, from what nnU-Net left on disk."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from factorizer_nnunet.training.budget import Budget, budget_from_suffix

if TYPE_CHECKING:
    from benchmarks.hippocampus import Run

COMPARISONS = ("nnU-Net", "equal iterations", "equal wall time")
TITLES = {
    "nnU-Net": "nnU-Net (PlainConvUNet, SGD)",
    "equal iterations": "Factorizer, equal iterations",
    "equal wall time": "Factorizer, equal wall time",
}


def dice_of(run: Run, root: Path) -> dict[str, float] | None:
    """Mean Dice of the fold's validation cases per structure, as nnU-Net's summary.json has it; None if missing."""
    path = run.folder(root) / "validation" / "summary.json"
    if not path.exists():
        return None
    return {label: values["Dice"] for label, values in json.loads(path.read_text())["mean"].items()}


def write_report(runs: Sequence[Run], root: Path, docs: Path) -> None:
    """Write ``hippocampus.md``, ``hippocampus.json`` and ``hippocampus.png`` into ``docs``."""
    docs.mkdir(parents=True, exist_ok=True)
    timing = json.loads((root / "iteration_time.json").read_text())
    dataset = json.loads(next((root / "raw").glob("Dataset004*/dataset.json")).read_text())
    labels = {str(value): name for name, value in dataset["labels"].items() if value}
    wanted = [(budget, comparison) for budget in ("short", "long") for comparison in COMPARISONS]
    wanted += [(run.budget, run.comparison) for run in runs if run.budget == "recipe"]
    rows = [row for row in (_row(runs, *names, root, timing) for names in wanted) if row]
    ensembles = _cross_validation(runs, root)
    content = {"timing": timing, "rows": rows, "cross_validation": ensembles}
    (docs / "hippocampus.json").write_text(json.dumps(content, indent=1))
    (docs / "hippocampus.md").write_text(_page(rows, timing, labels, ensembles))
    _figure(runs, root, timing, docs / "hippocampus.png")


def _cross_validation(runs: Sequence[Run], root: Path) -> dict[str, float]:
    """Mean Dice over all cases of the models and their ensembles, as nnU-Net's find_best_configuration has it."""
    files = list((root / "results").glob("Dataset004*/inference_information.json"))
    if not files:
        return {}
    # Runs of equal length are one model in two rows; the first title stands.
    titles = {run.trainer: TITLES[run.comparison] for run in reversed(runs) if run.budget == "short"}
    results = json.loads(files[0].read_text())["all_results"]
    found = {
        " + ".join(titles[part.split("__")[0]] for part in key.removeprefix("ensemble___").split("___")[:2]): value
        for key, value in results.items()
        if key.startswith("ensemble___")
    }
    single = {titles[key.split("__")[0]]: value for key, value in results.items() if not key.startswith("ensemble___")}
    return {**single, **found}


def _common_folds(runs: Sequence[Run], budget: str, root: Path) -> list[int]:
    """Folds that every row of this budget has finished; means over different folds could not be compared."""
    finished = [
        {run.fold for run in runs if (run.budget, run.comparison) == names and dice_of(run, root) is not None}
        for names in {(run.budget, run.comparison) for run in runs if run.budget == budget}
    ]
    return sorted(set.intersection(*finished))


def _row(runs: Sequence[Run], budget: str, comparison: str, root: Path, timing: dict) -> dict | None:
    chosen = [run for run in runs if run.budget == budget and run.comparison == comparison]
    if budget == "recipe":
        folds = [run.fold for run in chosen if dice_of(run, root) is not None]
    else:
        folds = _common_folds(runs, budget, root)
    dice = {run.fold: dice_of(run, root) for run in chosen if run.fold in folds}
    if not dice:
        return None
    network = "nnU-Net" if comparison == "nnU-Net" else "Factorizer"
    length = _length(chosen[0])
    return {
        "budget": budget,
        "comparison": comparison,
        "trainer": chosen[0].trainer,
        "iterations": length.epochs * length.iterations_per_epoch,
        "seconds_per_iteration": timing["seconds_per_iteration"][network],
        "parameters": timing["parameters"][network],
        "folds": sorted(dice),
        "planned_folds": [run.fold for run in chosen],
        "dice_per_fold": {fold: statistics.mean(dice[fold].values()) for fold in sorted(dice)},
        "dice": {label: statistics.mean(d[label] for d in dice.values()) for label in next(iter(dice.values()))},
        "mean_dice": statistics.mean(statistics.mean(d.values()) for d in dice.values()),
    }


def _length(run: Run) -> Budget:
    """Epochs and iterations per epoch, from the trainer's name."""
    return budget_from_suffix("_" + run.trainer.split("_", 1)[1])


def _page(rows: Sequence[dict], timing: dict, names: dict[str, str], cross_validation: dict[str, float]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in timing["versions"].items())
    patch = " × ".join(str(v) for v in timing["patch_size"])
    lines = [
        "# Hippocampus: Factorizer against nnU-Net's U-Net",
        "",
        "Written by `python -m benchmarks.hippocampus DATA --root WORK`; DATA: Medical Segmentation Decathlon, Task04",
        "(Simpson et al., arXiv 1902.09063), 100 cases, nnU-Net's default five folds.",
        "",
        "Plans: stock `nnUNetPlans`, planned with `-gpu_memory_target 0.05` for what two CPU cores bear (patch",
        f"{patch}, batch {timing['batch_size']}); plans, preprocessed data and folds are the same for both networks.",
        "Trained by `nnUNetv2_train` on the CPU. Dice of the validation cases, by nnU-Net's sliding window without",
        "mirroring. Seconds per iteration (forward, loss, backward, step) are medians of alternating iterations in one",
        f"process on {timing['threads']} thread; one of nnU-Net's takes the time of {timing['ratio']:.2f} of ours, and",
        "equal wall time means that many more iterations. A table holds the folds that all its rows have finished.",
        "The budgets are what two CPU cores bear and far from nnU-Net's own 1000 epochs of 250 iterations: the page",
        "tells who learns faster, not who is better in the end. Our learning rate was chosen on fold 0; nnU-Net's",
        "recipe is its own, made for its own budget. The long budget is for fold 0 alone.",
        f"Machine: {timing['machine']}; {versions}.",
        "",
    ]
    for budget, heading in (("short", "Short budget"), ("long", "Long budget")):
        chosen = [row for row in rows if row["budget"] == budget]
        if not chosen:
            continue
        labels = list(chosen[0]["dice"])
        lines += [f"## {heading}", ""]
        header = ["", "iterations", "folds", *(names.get(label, label) for label in labels), "mean Dice", "s/iteration"]
        lines += ["| " + " | ".join([*header, "parameters"]) + " |", "|" + "---|" * (len(header) + 1)]
        for row in chosen:
            cells = [
                TITLES[row["comparison"]],
                str(row["iterations"]),
                f"{len(row['folds'])} of {len(row['planned_folds'])}",
                *(f"{row['dice'][label]:.4f}" for label in labels),
                f"**{row['mean_dice']:.4f}**",
                f"{row['seconds_per_iteration']:.3f}",
                f"{row['parameters'] / 1e6:.2f} M",
            ]
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", *_per_fold(chosen), "", _against_aims(chosen), ""]
    if cross_validation:
        lines += ["## All folds together", "", "The short budget's models and their pairs by"]
        lines += [
            "`nnUNetv2_find_best_configuration`: mean Dice over all cases, ensembles of averaged probabilities.",
            "",
        ]
        lines += ["| | mean Dice |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in cross_validation.items()] + [""]
    lines += [*_recipe(rows), "![validation Dice while training](hippocampus.png)", ""]
    return "\n".join(lines)


def _against_aims(rows: Sequence[dict]) -> str:
    """How far above nnU-Net, beside what was aimed for."""
    mean = {row["comparison"]: row["mean_dice"] for row in rows}
    gain = {name: mean[name] - mean["nnU-Net"] for name in mean if name != "nnU-Net"}
    return (
        f"Above nnU-Net by {gain['equal iterations']:+.4f} at equal iterations (aim: not below) and by "
        f"{gain['equal wall time']:+.4f} at equal wall time (aim: at least 0.01)."
    )


def _recipe(rows: Sequence[dict]) -> list[str]:
    """Why the recipe has its learning rate: the others tried, on the same fold with the same number of iterations."""
    others = [row for row in rows if row["budget"] == "recipe"]
    own = next((row for row in rows if row["comparison"] == "equal iterations"), None)
    if not others or own is None:
        return []
    fold = others[0]["folds"][0]
    lines = [
        "## Learning rate",
        "",
        f"Fold {fold}, {own['iterations']} iterations.",
        "",
        "| | mean Dice |",
        "|---|---|",
    ]
    if fold in own["dice_per_fold"]:
        lines.append(f"| the recipe's 3e-3 | {own['dice_per_fold'][fold]:.4f} |")
    lines += [f"| {row['comparison'].removeprefix('learning rate ')} | {row['mean_dice']:.4f} |" for row in others]
    return [*lines, ""]


def _per_fold(rows: Sequence[dict]) -> list[str]:
    lines = []
    for row in rows:
        folds = ", ".join(f"{fold}: {value:.4f}" for fold, value in row["dice_per_fold"].items())
        lines.append(f"* {TITLES[row['comparison']]}, mean Dice per fold: {folds}")
    return lines


def _figure(runs: Sequence[Run], root: Path, timing: dict, target: Path) -> None:
    """Pseudo Dice that nnU-Net logs after each epoch, against the time of the training iterations."""
    budgets = [b for b in ("short", "long") if any(run.budget == b and _curve(run, root) for run in runs)]
    if not budgets:
        return
    figure, axes = plt.subplots(1, len(budgets), figsize=(6 * len(budgets), 4), squeeze=False, layout="constrained")
    colours = {"nnU-Net": "#555555", "equal iterations": "#e08214", "equal wall time": "#1b7837"}
    for axis, budget in zip(axes[0], budgets, strict=True):
        labelled: set[str] = set()
        for run in runs:
            curve = _curve(run, root) if run.budget == budget else []
            if not curve:
                continue
            network = "nnU-Net" if run.comparison == "nnU-Net" else "Factorizer"
            minutes = _length(run).iterations_per_epoch * timing["seconds_per_iteration"][network] / 60
            label = None if run.comparison in labelled else TITLES[run.comparison]
            labelled.add(run.comparison)
            times = [minutes * (epoch + 1) for epoch in range(len(curve))]
            axis.plot(times, curve, color=colours[run.comparison], lw=1.2, alpha=0.8, label=label)
        axis.set(title=f"{budget} budget", xlabel="training time / min", ylabel="pseudo Dice (random patches)")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(target, dpi=110)
    plt.close(figure)


def _curve(run: Run, root: Path) -> list[float]:
    values: dict[int, float] = {}  # by epoch: a continued training repeats some
    epoch = 0
    for log in sorted(run.folder(root).glob("training_log_*.txt")):
        for line in log.read_text().splitlines():
            if match := re.search(r": Epoch (\d+)\s*$", line):
                epoch = int(match[1])
            elif "Pseudo dice" in line:
                values[epoch] = statistics.mean(float(number) for number in re.findall(r"\d+\.\d+", line.split("[")[1]))
    return [values[e] for e in sorted(values)]
