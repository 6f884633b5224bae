"""What a run has come to, as values ready for JSON: read from the disk, whoever ran the steps."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.running.best_configuration import BestConfiguration, read_best_configuration
from factorizer_nnunet.running.command_lines import stock
from factorizer_nnunet.running.dataset_files import raw_dataset_json
from factorizer_nnunet.running.measurements import read_attempts
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.settings import RunModel, RunSettings
from factorizer_nnunet.running.steps import AFTER_CHOICE, BEST, SCORES, Step, build_steps

MEAN = "mean"
DONE, FAILED, WAITING = "done", "failed", "waiting"


def summarize(settings: RunSettings) -> dict[str, Any]:
    """The summary.

    Returns:
        ``dataset``; ``models``, each with ``folds`` and the Dice over all of them; ``best`` or None; ``test`` or None;
        ``steps`` with state, cost and stock commands. Dice is by class or region, ``mean`` over the foreground.
    """
    paths = RunPaths(settings.folders, settings.dataset)
    steps = build_steps(settings)
    chosen = next(step for step in steps if step.name == BEST).state().done
    described = {step.name: describe_step(step, paths, chosen) for step in steps}
    regions = region_names(raw_dataset_json(paths))
    choice = read_best_configuration(paths) if chosen else None
    return {
        "dataset": settings.dataset,
        "models": [_model(settings, paths, model, regions, choice) for model in settings.trained_models],
        "best": None if choice is None else _best(choice),
        "test": _test(settings, regions, described),
        "steps": list(described.values()),
    }


def describe_step(step: Step, paths: RunPaths, chosen: bool) -> dict[str, Any]:
    """State and cost of a step; what failed says why, and every command is as a user would type it.

    Args:
        chosen: whether the best model is known, which says what predicts.
    """
    known = chosen or step.name not in AFTER_CHOICE
    state = step.state()
    attempts = read_attempts(paths.measurements(step.name))
    error = attempts[-1].error if attempts and not state.done else None
    gpu = [attempt.gpu_memory_gb for attempt in attempts if attempt.gpu_memory_gb is not None]
    return {
        "name": step.name,
        "state": DONE if state.done else FAILED if error else WAITING,
        "progress": state.progress,
        "why": error,
        "attempts": len(attempts),
        "seconds": round(sum(attempt.seconds for attempt in attempts), 1),
        "memory_gb": max((attempt.memory_gb for attempt in attempts), default=None),
        "gpu_memory_gb": max(gpu, default=None),
        "commands": [shlex.join(stock(command)) for command in step.commands()] if known else [],
        "log": str(paths.log(step.name)),
    }


def region_names(dataset_json: Mapping[str, Any]) -> dict[str, str]:
    """Names of classes or regions by the key that nnU-Net's scores have for them; without background."""
    ignored = ("background", "ignore")
    return {
        str(tuple(value) if isinstance(value, list) else value): name
        for name, value in dataset_json["labels"].items()
        if name not in ignored
    }


def dice_by_region(file: Path, regions: Mapping[str, str]) -> dict[str, float] | None:
    """Dice by region and their mean, from one of nnU-Net's ``summary.json``; None if it is not there."""
    scores = read_complete_json(file)
    if scores is None:
        return None
    by_region = {name: scores["mean"][key]["Dice"] for key, name in regions.items() if key in scores["mean"]}
    return {**by_region, MEAN: scores["foreground_mean"]["Dice"]}


def _model(
    settings: RunSettings, paths: RunPaths, model: RunModel, regions: Mapping[str, str], choice: BestConfiguration | None
) -> dict[str, Any]:
    folds = {}
    for step in build_steps(settings):
        if step.trains is not None and step.trains[0] == model:
            fold = step.trains[1]
            folds[str(fold)] = dice_by_region(paths.fold_summary(model, fold), regions) if step.state().done else None
    merged = None
    if choice is not None and model in choice.considered:
        merged = dice_by_region(paths.all_folds_summary(model, choice.folds), regions)
    return {"name": model.name, "folds": folds, "all_folds": merged}


def _best(choice: BestConfiguration) -> dict[str, Any]:
    singles = {model.name: choice.dice[model.name] for model in choice.considered if model.name in choice.dice}
    ensembles = {name: dice for name, dice in choice.dice.items() if name not in singles}
    best_single = max(singles, key=singles.get)
    best_ensemble = max(ensembles, key=ensembles.get) if ensembles else None
    return {
        "name": choice.name,
        "models": [model.name for model in choice.models],
        "dice": choice.dice_before,
        "dice_after_postprocessing": choice.dice_after,
        "best_single_model": best_single,
        "best_ensemble": best_ensemble,
        "gain_of_ensemble": None if best_ensemble is None else ensembles[best_ensemble] - singles[best_single],
        "all": dict(choice.dice),
    }


def _test(settings: RunSettings, regions: Mapping[str, str], described: Mapping[str, dict]) -> dict[str, Any] | None:
    if settings.prediction is None:
        return None
    output = settings.prediction.output
    scored = described.get(SCORES, {}).get("state") == DONE
    return {
        "images": str(settings.prediction.images),
        "output": str(output),
        "dice": dice_by_region(output / "summary.json", regions) if scored else None,
    }
