"""The only writer of an import: plans, then the model folder, each whole or not at all and nothing overwritten."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from torch import nn

from factorizer_nnunet.core.atomic_files import atomic_folder, write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.names import TRAINER
from factorizer_nnunet.training.trainer import build_optimizer


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Where an import goes.

    Attributes:
        plans_file: in ``nnUNet_preprocessed``.
        model: the model's folder in ``nnUNet_results``.
        fold: the fold's folder in it.
    """

    plans_file: Path
    model: Path
    fold: Path

    @property
    def checkpoint(self) -> Path:
        """The file that holds the weights."""
        return self.fold / "checkpoint_final.pth"

    def check_free(self, plans: Mapping[str, Any], description: Mapping[str, Any]) -> None:
        """Check that writing would overwrite nothing.

        Plans and a model that are there must be those that would be written: then only the fold is new.

        Raises:
            UserError: something else is there.
        """
        mend = "choose another name with --plans-name"
        expected = {
            self.plans_file: plans,
            self.model / "plans.json": plans,
            self.model / "dataset.json": description,
        }
        for file, content in expected.items():
            if file.exists() and load_json_object(file, f"Remove it or {mend}") != json.loads(json.dumps(content)):
                raise UserError(f"{file} exists with other content and is not overwritten: {mend}")
            if self.model.exists() and not file.exists():
                raise UserError(f"{self.model} exists but {file} does not, so it is no model of these plans: {mend}")
        if self.fold.exists():
            raise UserError(f"{self.fold} exists and is not overwritten: choose another fold with -f, or {mend}")

    def write(
        self, plans: Mapping[str, Any], description: Mapping[str, Any], fingerprint: Path, checkpoint: Mapping[str, Any]
    ) -> None:
        """Write all; the plans come first, so that a run after an interruption finds what it would write.

        Raises:
            UserError: the file system refused.
        """
        try:
            if not self.plans_file.exists():
                write_text_atomically(self.plans_file, json.dumps(plans, indent=4))
            if self.model.exists():
                with atomic_folder(self.fold) as draft:
                    torch.save(checkpoint, draft / self.checkpoint.name)
                return
            with atomic_folder(self.model) as draft:
                (draft / self.fold.name).mkdir()
                torch.save(checkpoint, draft / self.fold.name / self.checkpoint.name)
                (draft / "plans.json").write_text(json.dumps(plans, indent=4), encoding="utf-8")
                (draft / "dataset.json").write_text(json.dumps(description, indent=4), encoding="utf-8")
                if fingerprint.is_file():
                    shutil.copyfile(fingerprint, draft / fingerprint.name)
        except (OSError, RuntimeError) as error:  # torch tells a full disk by the latter
            raise UserError(
                f"cannot write {self.plans_file} and {self.fold}: {error}. Make room or mend the permissions, then run "
                "the command again"
            ) from error


def checkpoint_of(
    network: nn.Module, plans: Mapping[str, Any], configuration: str, fold: int | str, description: Mapping[str, Any]
) -> dict[str, Any]:
    """What nnU-Net's trainer would have saved before its first epoch with this network.

    So the file serves to predict and as ``-pretrained_weights``, and also to validate (``--val``) and to go on with
    all layers (``--c``).
    """
    return {
        "network_weights": network.state_dict(),
        "optimizer_state": build_optimizer(network).state_dict(),
        "grad_scaler_state": None,
        "logging": LocalLogger().get_checkpoint(),
        "_best_ema": None,
        "current_epoch": 0,
        "init_args": {
            "plans": dict(plans),
            "configuration": configuration,
            "fold": fold,
            "dataset_json": dict(description),
            "device": torch.device("cpu"),
        },
        "trainer_name": TRAINER,
        "inference_allowed_mirroring_axes": tuple(range(network.config.ndim)),
    }
