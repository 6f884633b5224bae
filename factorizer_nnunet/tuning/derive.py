"""A model folder that predicts with another setting; the weights are those of the model it was derived from.

Stock commands build the network from ``plans.json`` and mirror as the first checkpoint says, so these two carry
iterations, shifts and mirroring. The tile step has no place there (``prediction.tiles``). The checkpoints hold what
predictions need, without the optimizer's state, and are copies: a training that goes on in the original changes nothing
here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from factorizer_nnunet.core.atomic_files import atomic_folder
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.model_folder import INFERENCE_FILE
from factorizer_nnunet.planning.architecture import factorizer_architecture
from factorizer_nnunet.prediction.model import TrainedModel
from factorizer_nnunet.training.building import STOCK_PACKAGE
from factorizer_nnunet.tuning.settings import Setting


def derived_folder(model: TrainedModel, plans_name: str) -> Path:
    """Where the model of this name goes, beside the original; checked to be free.

    Raises:
        UserError: the name cannot be one of plans, the folder exists or cannot be made.
    """
    mend = "Choose another name with --plans-name, or only measure with --measure-only"
    if re.fullmatch(r"\w+", plans_name, re.ASCII) is None or "__" in plans_name or plans_name.strip("_") != plans_name:
        raise UserError(
            f"--plans-name {plans_name!r}: nnU-Net's folders are TRAINER__PLANS__CONFIGURATION, so the name must be of "
            "letters, digits and single underscores between them"
        )
    first = model.first
    folder = model.folder.absolute().parent / f"{first.trainer_name}__{plans_name}__{first.configuration}"
    if folder.exists():
        raise UserError(f"{folder} exists and is not overwritten. {mend}")
    if not os.access(folder.parent, os.W_OK | os.X_OK):
        raise UserError(
            f"you may not write in {folder.parent}. Change its permissions, or only measure (--measure-only)"
        )
    return folder


def derived_plans(model: TrainedModel, setting: Setting, plans_name: str) -> dict[str, Any]:
    """The model's plans with another name and, in its configuration, with the setting's iterations and shifts.

    A stock U-Net, which our trainer translates whenever it builds the network, is translated here for good.
    """
    plans = json.loads(json.dumps(model.plans.plans))
    architecture = {
        "network_class_name": model.settings.network_arch_class_name,
        "arch_kwargs": model.settings.network_arch_init_kwargs,
        "_kw_requires_import": list(model.settings.network_arch_init_kwargs_req_import),
    }
    if architecture["network_class_name"].startswith(STOCK_PACKAGE):
        architecture = factorizer_architecture(architecture["arch_kwargs"], model.settings.spacing)
    used = model.network.config.used_with(setting.num_iters, setting.num_shifts)
    changes: dict[str, Any] = {"num_iters": used.num_iters}
    if used.num_shifts is not None and used.num_shifts < len(used.shifts):
        changes["num_shifts"] = used.num_shifts
    if used.num_grad_steps is not None:
        changes["num_grad_steps"] = used.num_grad_steps
    # In the configuration itself, whatever it inherits: others of these plans stay as they are.
    plans["configurations"][model.first.configuration]["architecture"] = {
        **architecture,
        "arch_kwargs": {**architecture["arch_kwargs"], **changes},
    }
    return {**plans, "plans_name": plans_name}


def write_derived(
    model: TrainedModel, setting: Setting, target: Path, plans_name: str, checkpoint_name: str, measured: dict[str, Any]
) -> None:
    """Write the folder, whole or not at all.

    Args:
        model: with all folds that the folder is to have.
        setting: how it predicts.
        target: see ``derived_folder``.
        plans_name: of its plans.
        checkpoint_name: of the file in each fold.
        measured: what is known of the setting, for the record.

    Raises:
        UserError: the file system refused.
    """
    plans = derived_plans(model, setting, plans_name)
    record = {
        "derived_from": str(model.folder.absolute()),
        **asdict(setting),
        "measured": measured,
    }
    try:
        with atomic_folder(target) as draft:
            for fold, checkpoint in model.folds.items():
                content = {
                    "network_weights": dict(checkpoint.weights),
                    "trainer_name": checkpoint.trainer_name,
                    "init_args": {
                        "plans": plans,
                        "configuration": checkpoint.configuration,
                        "fold": int(fold) if fold.isdecimal() else fold,
                        "dataset_json": model.description,
                        "device": torch.device("cpu"),
                    },
                    "inference_allowed_mirroring_axes": setting.mirroring or None,
                }
                (draft / f"fold_{fold}").mkdir()
                torch.save(content, draft / f"fold_{fold}" / checkpoint_name)
                _write_for_export(model.folder / f"fold_{fold}", draft / f"fold_{fold}")
            for name, values in (("plans.json", plans), ("dataset.json", model.description), (INFERENCE_FILE, record)):
                (draft / name).write_text(json.dumps(values, indent=4), encoding="utf-8")
            fingerprint = model.folder / "dataset_fingerprint.json"
            if fingerprint.is_file():
                shutil.copyfile(fingerprint, draft / fingerprint.name)
    except (OSError, RuntimeError) as error:  # torch tells a full disk by the latter
        raise UserError(
            f"cannot write {target}: {error}. Make room or mend the permissions, then give the same command again: "
            "what was measured is kept"
        ) from error


def _write_for_export(fold: Path, draft: Path) -> None:
    """What nnUNetv2_export_model_to_zip wants of each fold: the curve of the training, and scores of its validation.

    These are scores of the predictions before they were made faster, and the file says so.
    """
    curve, scores = fold / "progress.png", fold / "validation" / "summary.json"
    if curve.is_file():
        shutil.copyfile(curve, draft / curve.name)
    if scores.is_file():
        content = load_json_object(scores, "Restore it, or validate the fold again with nnUNetv2_train --val")
        (draft / "validation").mkdir()
        words = f"validation of {fold.absolute()}, with what it was trained to compute"
        (draft / "validation" / scores.name).write_text(json.dumps({**content, "scores_of": words}, indent=4))
