"""Write an import: plans, then the model folder, each atomically and without overwriting anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from factorizer_nnunet.core.atomic_files import atomic_folder, write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.nnunet.checkpoint import checkpoint_content
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL, FoldFolder, ModelFolder
from factorizer_nnunet.nnunet.names import TRAINER
from factorizer_nnunet.training.trainer import build_optimizer


@dataclass(frozen=True)
class Targets:
    """Where an import is written.

    Attributes:
        plans_file: file in ``nnUNet_preprocessed``.
        model: folder in ``nnUNet_results``.
        fold: folder of the fold in the model folder.
    """

    plans_file: Path
    model: ModelFolder
    fold: FoldFolder

    def check_free(self, plans: Mapping[str, Any], description: Mapping[str, Any]) -> None:
        """Check that writing would overwrite nothing.

        Existing plans and an existing model must equal those to be written; then only the fold is new.

        Raises:
            UserError: something else exists.
        """
        fix = "choose another name with --plans-name"
        expected = {
            self.plans_file: plans,
            self.model.plans_file: plans,
            self.model.dataset_file: description,
        }
        for file, content in expected.items():
            if file.exists() and load_json_object(file, f"Remove it or {fix}") != json.loads(json.dumps(content)):
                raise UserError(f"{file} exists with other content and is not overwritten: {fix}")
            if self.model.path.exists() and not file.exists():
                raise UserError(f"{self.model.path} exists without {file}, so it is not a model of these plans: {fix}")
        if self.fold.path.exists():
            raise UserError(f"{self.fold.path} exists and is not overwritten: choose another fold with -f, or {fix}")

    def write(
        self, plans: Mapping[str, Any], description: Mapping[str, Any], fingerprint: Path, checkpoint: Mapping[str, Any]
    ) -> None:
        """Write everything; plans first, so that a run after an interruption accepts them as its own.

        Raises:
            UserError: a file cannot be written.
        """
        try:
            if not self.plans_file.exists():
                write_text_atomically(self.plans_file, json.dumps(plans, indent=4))
            if self.model.path.exists():
                with atomic_folder(self.fold.path) as draft:
                    torch.save(checkpoint, draft / CHECKPOINT_FINAL)
                return
            with atomic_folder(self.model.path) as draft:
                fold = draft / self.fold.path.name
                fold.mkdir()
                torch.save(checkpoint, fold / CHECKPOINT_FINAL)
                ModelFolder(draft).describe(plans, description, fingerprint)
        except (OSError, RuntimeError) as error:  # torch reports a full disk by the latter
            raise UserError(
                f"cannot write {self.plans_file} and {self.fold.path}: {error}. Free disk space or fix permissions, "
                "then run the command again"
            ) from error


def initial_checkpoint(
    network: Factorizer, plans: Mapping[str, Any], configuration: str, fold: str, description: Mapping[str, Any]
) -> dict[str, Any]:
    """The checkpoint that nnU-Net's trainer would save before its first epoch with this network.

    It can be used for prediction, as ``-pretrained_weights``, for validation (``--val``) and to continue training
    (``--c``).
    """
    axes = tuple(range(network.config.ndim))
    return {
        **checkpoint_content(network.state_dict(), TRAINER, plans, configuration, fold, description, axes),
        "optimizer_state": build_optimizer(network).state_dict(),
        "grad_scaler_state": None,
        "logging": LocalLogger().get_checkpoint(),
        "_best_ema": None,
        "current_epoch": 0,
    }
