"""A model folder that predicts with other settings and the weights of the model it is derived from.

Stock commands build the network from ``plans.json`` and mirror as the first checkpoint says, so these two carry
iterations, shifts and mirroring. The tile step has no place there (see ``nnunet.inference_settings``). The checkpoints
contain what predictions need, without the optimizer's state, and are copies: if the original is trained further,
nothing changes here.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from factorizer_nnunet.core.atomic_files import atomic_folder
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.network import FactorizerConfig
from factorizer_nnunet.nnunet.checkpoint import checkpoint_content
from factorizer_nnunet.nnunet.model_folder import FINGERPRINT_FILE, FoldFolder, ModelFolder
from factorizer_nnunet.nnunet.model_name import ModelName, is_plans_name
from factorizer_nnunet.prediction.model import TrainedModel
from factorizer_nnunet.training.building import trained_architecture
from factorizer_nnunet.tuning.search_space import PredictionSettings


def derived_folder(model: TrainedModel, plans_name: str) -> Path:
    """The folder of the derived model, next to the original; checked not to exist.

    Raises:
        UserError: the plans name is invalid, or the folder exists or cannot be made.
    """
    if not is_plans_name(plans_name):
        raise UserError(
            f"--plans-name {plans_name!r}: nnU-Net's folders are TRAINER__PLANS__CONFIGURATION, so the name may only "
            "contain letters, digits and single underscores between them"
        )
    name = ModelName(model.first.trainer_name, plans_name, model.first.configuration)
    folder = model.folder.absolute().parent / name.folder
    if folder.exists():
        raise UserError(
            f"{folder} exists and is not overwritten. Choose another name with --plans-name, or only measure with "
            "--measure-only"
        )
    if not os.access(folder.parent, os.W_OK | os.X_OK):
        raise UserError(
            f"no permission to write in {folder.parent}. Change its permissions, or only measure with --measure-only"
        )
    return folder


def derived_plans(
    model: TrainedModel, config: FactorizerConfig, setting: PredictionSettings, plans_name: str
) -> dict[str, Any]:
    """The model's plans with another name and, in its configuration, with other iterations and shifts.

    The plans of a stock U-Net, which our trainer translates whenever it builds the network, are translated here.
    """
    plans = json.loads(json.dumps(model.plans.plans))
    architecture = trained_architecture(model.configuration)
    used = config.used_with(setting.num_iters, setting.num_shifts)
    changes: dict[str, Any] = {"num_iters": used.num_iters}
    if used.num_shifts is not None and used.num_shifts < len(used.shifts):
        changes["num_shifts"] = used.num_shifts
    if used.num_grad_steps is not None:
        changes["num_grad_steps"] = used.num_grad_steps
    # In the configuration itself, even if it inherits its architecture: other configurations stay as they are.
    plans["configurations"][model.first.configuration]["architecture"] = {
        **architecture,
        "arch_kwargs": {**architecture["arch_kwargs"], **changes},
    }
    return {**plans, "plans_name": plans_name}


def write_derived(
    model: TrainedModel,
    plans: dict[str, Any],
    setting: PredictionSettings,
    target: Path,
    checkpoint_name: str,
    measured: dict[str, Any],
) -> None:
    """Write the folder with all folds of ``model`` atomically; ``measured`` are the setting's results, for the record.

    Raises:
        UserError: the file system refused.
    """
    original = ModelFolder(model.folder)
    record = {"derived_from": str(model.folder.absolute()), **asdict(setting), "measured": measured}
    try:
        with atomic_folder(target) as draft:
            for name, checkpoint in model.folds.items():
                content = checkpoint_content(
                    checkpoint.weights,
                    checkpoint.trainer_name,
                    plans,
                    checkpoint.configuration,
                    name,
                    model.dataset.content,
                    setting.mirroring or None,
                    checkpoint.channel_drop,
                )
                fold = ModelFolder(draft).fold(name)
                fold.path.mkdir()
                torch.save(content, fold.checkpoint(checkpoint_name))
                _copy_for_export(original.fold(name), fold)
            ModelFolder(draft).describe(plans, model.dataset.content, original.path / FINGERPRINT_FILE)
            ModelFolder(draft).inference_file.write_text(json.dumps(record, indent=4), encoding="utf-8")
    except (OSError, RuntimeError) as error:  # torch raises the latter if the disk is full
        raise UserError(
            f"cannot write {target}: {error}. Free some space or fix the permissions, then run the same command again: "
            "the measurements are kept"
        ) from error


def _copy_for_export(original: FoldFolder, derived: FoldFolder) -> None:
    """Copy what nnUNetv2_export_model_to_zip expects in each fold: the training curve and the validation scores.

    The scores are those of the original's predictions, and the file says so.
    """
    curve = original.path / "progress.png"
    if curve.is_file():
        shutil.copyfile(curve, derived.path / curve.name)
    if original.summary.is_file():
        content = load_json_object(original.summary, "Restore it, or validate the fold again with nnUNetv2_train --val")
        content["scores_of"] = f"validation of {original.path.absolute()}, with the settings it was trained with"
        derived.validation.mkdir()
        derived.summary.write_text(json.dumps(content, indent=4))
