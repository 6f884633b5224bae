"""Complete trainings of a few steps in this process, on random batches instead of a data set."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plans_example import NAME, MakeTrainer

from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

EPOCHS, STEPS, VALIDATION_STEPS = 3, 5, 1
TRAINER = f"nnUNetTrainerFactorizer_{EPOCHS}epochs_{STEPS}iters_lr1e-2"
# Called before each batch with how many this training and validation loader has given.
BeforeBatch = Callable[[str, int], None]


class RandomBatches:
    """Draws from all generators that nnU-Net's augmentation draws from."""

    def __init__(self, kind: str, before: BeforeBatch) -> None:
        self.kind, self.before, self.given = kind, before, 0
        self.draw()  # as nnU-Net does when it makes its loaders

    def __next__(self) -> dict[str, Any]:
        self.before(self.kind, self.given)
        self.given += 1
        return self.draw()

    def draw(self) -> dict[str, Any]:
        data = torch.randn(2, 2, 16, 16, 16) + float(np.random.normal()) + random.random()
        target = (data.mean(1, keepdim=True) > 0).float()
        return {"data": data, "target": [target, target[..., ::2, ::2, ::2]], "keys": ["case_0", "case_1"]}


class ShortTrainings:
    """Makes trainers of :data:`TRAINER` whose fold is this folder."""

    def __init__(self, make_trainer: MakeTrainer, root: Path) -> None:
        self.make_trainer = make_trainer
        self.fold = root / "nnUNet_results" / NAME / f"{TRAINER}__nnUNetPlans__3d_fullres" / "fold_0"
        self.preprocessed = root / "nnUNet_preprocessed" / NAME

    def trainer(
        self, before: BeforeBatch = lambda kind, given: None, go_on: bool = False, seed: int = 0
    ) -> nnUNetTrainerFactorizer:
        """A trainer as ``nnUNetv2_train`` makes it; ``go_on`` is its ``--c``."""
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        trainer = self.make_trainer(TRAINER)
        trainer.get_dataloaders = lambda: (RandomBatches("train", before), RandomBatches("val", before))
        trainer.initialize()
        if go_on:
            latest = self.fold / "checkpoint_latest.pth"
            trainer.load_checkpoint(str(latest if latest.exists() else self.fold / "checkpoint_best.pth"))
        return trainer


def weights_of(trainer: nnUNetTrainerFactorizer) -> torch.Tensor:
    return torch.cat([value.flatten() for value in trainer.network.state_dict().values()])


def losses_of(trainer: nnUNetTrainerFactorizer) -> dict[str, list[float]]:
    logged = trainer.logger.get_checkpoint()
    return {key: [float(v) for v in logged[key]] for key in ("train_losses", "val_losses", "lrs", "ema_fg_dice")}
