"""Where nnU-Net finds the trainer: ``nnUNet_extTrainer`` names this folder, which contains nothing else."""

from __future__ import annotations

import re

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from factorizer_nnunet.nnunet.names import TRAINER, parse_repeat
from factorizer_nnunet.training.repeats import repeated_trainer
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer, trainer_variant

__all__ = ["nnUNetTrainerFactorizer"]


def __getattr__(name: str) -> type[nnUNetTrainer]:
    # nnU-Net asks every module for the trainer's name; trainers of other lengths or kinds are made when asked for.
    # Other suffixes may be a user's own subclass in a folder that comes after this one.
    if re.match(rf"{TRAINER}_?(\d|lr|warmup|freeze|epoch|iter|channeldrop|repeat)", name):
        return trainer_variant(name)
    if parse_repeat(name)[1] > 1:  # of any other trainer
        return repeated_trainer(name)
    raise AttributeError(name)
