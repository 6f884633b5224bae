"""Whether a run that was killed again and again has come to what an undisturbed one comes to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK
import torch

from benchmarks.blobs import CASES, TEST_CASES
from benchmarks.kill_run_moments import EPOCHS, ITERATIONS
from factorizer_nnunet.nnunet.names import PLANS

FOLDS = range(5)


def check_result(root: Path, dataset: str, trainer: str, configurations: Sequence[str]) -> dict:
    """Look at what the run left.

    Returns:
        ``folds``, ``validated`` and ``predicted`` are counts, ``chosen`` is what predicted the test cases, and
        ``problems`` lists in words whatever is not as it must be.
    """
    results, problems, folds, validated = root / "nnUNet_results" / dataset, [], 0, set()
    for configuration in configurations:
        cases = []
        for fold in FOLDS:
            folder = results / f"{trainer}__{PLANS}__{configuration}" / f"fold_{fold}"
            found = _fold_problems(folder)
            problems += [f"{configuration} fold {fold}: {problem}" for problem in found]
            folds += not found
            cases += [path.stem for path in folder.glob("validation/*.npz")]
        if sorted(cases) != sorted(CASES):
            problems.append(f"{configuration}: validated {sorted(cases)} instead of each of {len(CASES)} cases once")
        validated.update((configuration, case) for case in cases)
    predicted = [case for case in TEST_CASES if _is_segmentation(root / "out" / f"{case}.nii.gz")]
    problems += [f"{case} is not predicted" for case in TEST_CASES if case not in predicted]
    chosen = _chosen(results)
    if len(chosen) != len(configurations):
        problems.append(f"test cases are predicted by {chosen}, not by an ensemble of {', '.join(configurations)}")
    return {
        "folds": folds,
        "epochs": EPOCHS,
        "iterations": ITERATIONS,
        "validated": len(validated),
        "predicted": len(predicted),
        "chosen": chosen,
        "problems": problems,
    }


def _fold_problems(folder: Path) -> list[str]:
    """Whether a fold was trained in full, each epoch logged once, and validated."""
    if not (folder / "checkpoint_final.pth").is_file():
        return ["has no checkpoint_final.pth"]
    checkpoint = torch.load(folder / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    problems = []
    if checkpoint["current_epoch"] != EPOCHS:
        problems.append(f"trained {checkpoint['current_epoch']} of {EPOCHS} epochs")
    logged = {key: len(values) for key, values in checkpoint["logging"].items()}
    if wrong := {key: count for key, count in logged.items() if count != EPOCHS}:
        problems.append(f"logged {wrong} instead of {EPOCHS} epochs")
    weights = checkpoint["network_weights"].values()
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        problems.append("has weights that are no numbers")
    if not (folder / "validation" / "summary.json").is_file():
        problems.append("is not validated")
    if left := [path.name for path in folder.glob("*.draft")]:
        problems.append(f"has half-written {left}")
    return problems


def _is_segmentation(file: Path) -> bool:
    if not file.is_file():
        return False
    labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
    return labels.ndim == 3 and set(np.unique(labels)) <= {0, 1, 2}


def _chosen(results: Path) -> list[str]:
    file = results / "factorizer_run" / "summary.json"
    best = json.loads(file.read_text(encoding="utf-8"))["best"] if file.is_file() else None
    return best["models"] if best else []
