"""Where nnU-Net finds the trainer: this folder stands in ``nnUNet_extTrainer`` and holds nothing else."""

from __future__ import annotations

from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer, trainer_variant


def __getattr__(name: str) -> type[nnUNetTrainerFactorizer]:
    # nnU-Net asks every module for the trainer's name; variants are made when their name is asked for.
    if name.startswith("nnUNetTrainerFactorizer_"):
        return trainer_variant(name)
    raise AttributeError(name)
