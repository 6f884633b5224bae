"""Compare the results of a run that was killed again and again with those of an undisturbed one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK
import torch
from blobs import CASES, TEST_CASES
from kill_moments import EPOCHS

from factorizer_nnunet.nnunet.names import PLANS

FOLDS = range(5)


def problems_of(root: Path, dataset: str, trainer: str, configurations: Sequence[str]) -> list[str]:
    """Everything in the results of a run that differs from those of an undisturbed one."""
    results, problems = root / "nnUNet_results" / dataset, []
    for configuration in configurations:
        model = results / f"{trainer}__{PLANS}__{configuration}"
        for fold in FOLDS:
            found = _fold_problems(model / f"fold_{fold}")
            problems += [f"{configuration} fold {fold}: {problem}" for problem in found]
        cases = [path.stem for path in model.glob("fold_*/validation/*.npz")]
        if sorted(cases) != sorted(CASES):
            problems.append(f"{configuration}: validated {sorted(cases)} instead of each of {len(CASES)} cases once")
    for case in TEST_CASES:
        if not _is_segmentation(root / "out" / f"{case}.nii.gz"):
            problems.append(f"{case} is not predicted")
    chosen = _chosen(results)
    if len(chosen) != len(configurations):
        problems.append(f"test cases are predicted by {chosen}, not by an ensemble of {', '.join(configurations)}")
    return problems


def _fold_problems(folder: Path) -> list[str]:
    """Whether a fold was trained in full, logged each epoch once, and was validated."""
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
        problems.append("has weights that are not finite")
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
