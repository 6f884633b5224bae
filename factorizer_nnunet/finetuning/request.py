"""What to fine-tune, for which data set, and the name of the trainer that does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.finetuning.source import SourceModel
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL, is_fold_name
from factorizer_nnunet.nnunet.model_name import is_plans_name
from factorizer_nnunet.nnunet.names import CHANNEL_DROP, TRAINER, finetuned_plans_name
from factorizer_nnunet.training.budget import PARTS, Budget, budget_from_suffix, changed_suffix

# A third of the rate of a training from scratch (``trainer.LEARNING_RATE``); docs/finetuning.md says what was measured.
LEARNING_RATE = 1e-3
_EPOCHS, _ITERATIONS, _LONGEST_WARMUP = 1000, 250, 1000  # nnU-Net's length, and the recipe's warm-up


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest:
    """A fine-tuning.

    Attributes:
        source: the model to start from, a model folder or nnU-Net's zip of one.
        dataset: ID or name of a data set in ``nnUNet_raw``.
        configuration: of the model, if the zip has several.
        folds: to train; numbers, or ``all``.
        trainer: None takes ours for a Factorizer, else that of the model.
        plans: name of the plans to write; None derives it from the model's data set.
        maps: ``OLD=NEW`` for channels and classes whose names differ.
        freeze: parts of the network that are not trained, of ``PARTS``.
        learning_rate: highest rate; None is ``LEARNING_RATE`` for our trainer, unless its name says another.
        warmup: iterations over which the rate rises; None is a tenth of the training, at most 1000, unless its name
            says another or a time, of which the number of iterations is not known.
        source_fold: whose weights are taken; None takes ``all``, else the first.
        checkpoint: name of the file in the fold of the model.
        num_processes: worker processes of planning and preprocessing.
        check_data: whether every voxel is looked at first.
    """

    source: Path
    dataset: str | int
    configuration: str | None = None
    folds: tuple[str, ...] = ("0", "1", "2", "3", "4")
    trainer: str | None = None
    plans: str | None = None
    maps: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    learning_rate: float | None = None
    warmup: int | None = None
    source_fold: str | None = None
    checkpoint: str = CHECKPOINT_FINAL
    device: str = "cuda"
    num_processes: int = 1
    check_data: bool = True

    def check(self) -> None:
        """Check what needs no file.

        Raises:
            UserError: a value is not possible.
        """
        if self.plans is not None and not is_plans_name(self.plans):
            raise UserError(
                f"{self.plans!r} cannot name the plans of a model: use letters, digits and single underscores between "
                "them, such as nnUNetFactorizerFinetunedPlans_v2"
            )
        for fold in (*self.folds, *([] if self.source_fold is None else [self.source_fold])):
            if not is_fold_name(fold):
                raise UserError(f"invalid fold {fold!r}: give a number, such as 0, or all")
        if unknown := [part for part in self.freeze if part not in PARTS]:
            raise UserError(f"unknown part {unknown[0]!r} of --freeze: choose from {', '.join(PARTS)}")
        for option, value in (("--learning-rate", self.learning_rate), ("--warmup", self.warmup)):
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"invalid {option} {value}: give a number above 0")

    def plans_name(self, source: SourceModel) -> str:
        """The name of the plans to write."""
        return self.plans or finetuned_plans_name(str(source.model.plans.dataset_name))

    def trainer_name(self, source: SourceModel, channels: int) -> str:
        """The trainer, with learning rate, warm-up and frozen parts in its name if it is ours.

        Args:
            source: the model.
            channels: of the new data set.

        Raises:
            UserError: options need our trainer, but another one trains; or they contradict its name.
        """
        given = [
            option
            for option, value in (
                ("--learning-rate", self.learning_rate),
                ("--warmup", self.warmup),
                ("--freeze", self.freeze or None),
            )
            if value is not None
        ]
        name = self.trainer or (TRAINER if source.is_factorizer else source.checkpoint.trainer_name)
        if self.trainer is None and source.is_factorizer and source.checkpoint.channel_drop and channels > 1:
            name += CHANNEL_DROP
        suffix = name.removeprefix(TRAINER)
        try:
            if suffix == name:
                raise ValueError(f"it is not {TRAINER}")
            budget = budget_from_suffix(suffix)
            return TRAINER + changed_suffix(suffix, *self._schedule(budget), self.freeze)
        except ValueError as error:
            if not given:
                return name
            raise UserError(
                f"{' and '.join(given)} cannot be given to {name}: {error}. Leave the options out, or choose with -tr "
                "a trainer that does what they should"
            ) from error

    def _schedule(self, budget: Budget) -> tuple[float | None, int | None]:
        """Learning rate and warm-up to add to a trainer's name; None keeps what it says."""
        for option, given, named in (
            ("--learning-rate", self.learning_rate, budget.learning_rate),
            ("--warmup", self.warmup, budget.warmup),
        ):
            if given is not None and named is not None and given != named:
                raise ValueError(f"its name says {named:g}, {option} says {given:g}")
        rate = self.learning_rate or (LEARNING_RATE if budget.learning_rate is None else None)
        warmup = self.warmup
        if warmup is None and budget.warmup is None and budget.minutes is None:
            total = (budget.epochs or _EPOCHS) * (budget.iterations_per_epoch or _ITERATIONS)
            warmup = max(1, min(_LONGEST_WARMUP, total // 10))
        return rate, warmup
