"""The summary of a run, as values ready for JSON, read from the disk."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.nnunet.model_folder import SUMMARY_FILE
from factorizer_nnunet.nnunet.model_name import ModelName, repeat_of
from factorizer_nnunet.running.best_configuration import BestConfiguration, current_best_configuration
from factorizer_nnunet.running.inference_files import INFERENCE_STEPS, SCORES, tuned_rules
from factorizer_nnunet.running.measurements import read_attempts
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.settings import Prediction, RunSettings
from factorizer_nnunet.running.step import Step
from factorizer_nnunet.running.steps import build_steps

MEAN = "mean"
DONE, FAILED, WAITING = "done", "failed", "waiting"


def summarize(settings: RunSettings) -> dict[str, Any]:
    """Describe what a run has achieved so far.

    Returns:
        ``dataset``; ``name`` of the run or None; ``models``, each with ``folds`` and the Dice over all of them;
        ``repeats``, the mean Dice of each training of a model that was trained several times, and their ``spread``;
        ``best`` or None; ``test`` or None; ``steps`` with state, cost and commands. Dice is by class or region,
        ``mean`` over the foreground.
    """
    steps = build_steps(settings)
    best = None
    with contextlib.suppress(OSError, UserError):  # the step that finds it says what is wrong
        best = current_best_configuration(settings)
    described = {step.name: describe_step(step, settings.paths, best is not None) for step in steps}
    regions = settings.paths.raw_dataset().region_keys
    models = [_model(settings.paths, model, steps, described, regions, best) for model in settings.trained_models]
    return {
        "dataset": settings.dataset,
        "name": settings.name,
        "models": models,
        "repeats": _repeats(settings, models),
        "best": None if best is None else _best(settings.paths, best),
        "test": _test(settings.prediction, regions, described),
        "steps": list(described.values()),
    }


def describe_step(step: Step, paths: RunPaths, chosen: bool) -> dict[str, Any]:
    """State and cost of a step, why it failed, and its commands as a user would type them.

    Args:
        chosen: whether the best configuration is known, which determines the commands that predict.
    """
    known = chosen or step.name not in INFERENCE_STEPS
    state = step.look()
    attempts = read_attempts(paths.measurements(step.name))
    error = state.blocked or (attempts[-1].error if attempts and not state.done else None)
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
        "commands": [shlex.join(command) for command in step.commands()] if known else [],
        "log": str(paths.log(step.name)),
    }


def dice_by_region(file: Path, region_keys: Mapping[str, str]) -> dict[str, float] | None:
    """Dice by region and their mean, from one of nnU-Net's ``summary.json``; None if it does not exist.

    Args:
        region_keys: the key of each region in the file.
    """
    scores = read_complete_json(file)
    if scores is None:
        return None
    by_region = {name: scores["mean"][key]["Dice"] for name, key in region_keys.items() if key in scores["mean"]}
    return {**by_region, MEAN: scores["foreground_mean"]["Dice"]}


def _model(
    paths: RunPaths,
    model: ModelName,
    steps: list[Step],
    described: Mapping[str, Mapping[str, Any]],
    regions: Mapping[str, str],
    best: BestConfiguration | None,
) -> dict[str, Any]:
    folds = {}
    for step in steps:
        if step.trains is not None and step.trains[0] == model:
            fold = step.trains[1]
            done = described[step.name]["state"] == DONE
            folds[str(fold)] = dice_by_region(paths.fold(model, fold).summary, regions) if done else None
    all_folds = None
    if best is not None and model in best.considered:
        all_folds = dice_by_region(paths.model(model).cross_validation(best.folds) / SUMMARY_FILE, regions)
    return {"name": model.folder, "folds": folds, "all_folds": all_folds}


def _repeats(settings: RunSettings, models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean Dice over the folds of each finished training of every model, and the largest difference between two."""
    folds = {model["name"]: list(model["folds"].values()) for model in models}
    found = []
    for model in settings.models if settings.repeats > 1 else ():
        names = [repeat_of(model, number).folder for number in range(1, settings.repeats + 1)]
        means = {name: fmean(dice[MEAN] for dice in folds[name]) for name in names if None not in folds[name]}
        spread = max(means.values()) - min(means.values()) if len(means) > 1 else None
        found.append({"model": model.folder, "dice": means, "spread": spread})
    return found


def _best(paths: RunPaths, best: BestConfiguration) -> dict[str, Any]:
    singles = {model.folder: best.dice[model.folder] for model in best.considered if model.folder in best.dice}
    ensembles = {name: dice for name, dice in best.dice.items() if name not in singles}
    best_single = max(singles, key=singles.__getitem__)
    best_ensemble = max(ensembles, key=ensembles.__getitem__) if ensembles else None
    rules = tuned_rules(paths, best)
    return {
        "name": best.name,
        "models": [model.folder for model in best.models],
        "dice": best.dice_before,
        "dice_after_postprocessing": best.dice_after if rules is None else None,
        "rules": None if rules is None else str(rules),
        "best_single_model": best_single,
        "best_ensemble": best_ensemble,
        "gain_of_ensemble": None if best_ensemble is None else ensembles[best_ensemble] - singles[best_single],
        "all": dict(best.dice),
    }


def _test(
    prediction: Prediction | None, regions: Mapping[str, str], described: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    if prediction is None:
        return None
    scored = described.get(SCORES, {}).get("state") == DONE
    return {
        "images": str(prediction.images),
        "output": str(prediction.output),
        "dice": dice_by_region(prediction.output / SUMMARY_FILE, regions) if scored else None,
    }
