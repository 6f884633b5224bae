"""Where nnU-Net finds the trainer: ``nnUNet_extTrainer`` names this folder, which contains nothing else."""

from __future__ import annotations

import re

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from factorizer_nnunet.core.errors import UserError, print_user_errors_without_traceback
from factorizer_nnunet.nnunet.names import TRAINER, parse_repeat
from factorizer_nnunet.training.repeats import repeated_trainer
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer, trainer_variant

_OURS = re.compile(rf"{TRAINER}_*(\d|[hm]\d|lr|warmup|freeze|epoch|iter|hour|minute|channeldrop|repeat)", re.IGNORECASE)

__all__ = ["nnUNetTrainerFactorizer"]


def __getattr__(name: str) -> type[nnUNetTrainer]:
    # nnU-Net asks every module for the trainer's name; trainers of other lengths or kinds are made when asked for.
    # Other suffixes may be a user's own subclass in a folder that comes after this one, if it can be one.
    if _OURS.match(name) or (name.startswith(f"{TRAINER}_") and not name.isidentifier()):
        try:
            return trainer_variant(name)
        except ValueError as error:
            print_user_errors_without_traceback()  # in nnU-Net's commands
            raise UserError(str(error)) from None
    if parse_repeat(name)[1] > 1:  # of any other trainer
        return repeated_trainer(name)
    raise AttributeError(name)
