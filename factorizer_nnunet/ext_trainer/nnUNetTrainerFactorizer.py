"""Where nnU-Net finds the trainer: ``nnUNet_extTrainer`` names this folder, which contains nothing else."""

from __future__ import annotations

import re

from factorizer_nnunet.nnunet.names import TRAINER
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer, trainer_variant


def __getattr__(name: str) -> type[nnUNetTrainerFactorizer]:
    # nnU-Net asks every module for the trainer's name; trainers of other lengths or kinds are made when asked for.
    # Other suffixes may be a user's own subclass in a folder that comes after this one.
    if re.match(rf"{TRAINER}_?(\d|lr|warmup|freeze|epoch|iter|channeldrop)", name):
        return trainer_variant(name)
    raise AttributeError(name)
