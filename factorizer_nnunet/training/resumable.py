"""An nnU-Net trainer that can be stopped or killed at any moment and continues with ``--c``.

nnU-Net saves every 50 epochs and resumes at the start of an epoch. Here a checkpoint is also written every few minutes
and when a signal asks the training to stop, after any step of an epoch. It contains the losses of the epoch's completed
training steps and the random state, and ``--c`` continues with the next step: no training step is repeated, only the
epoch's validation steps are. With augmentation in the same process (``nnUNet_n_proc_DA=0``) on one CPU thread, the
result is bitwise that of an uninterrupted training; worker processes draw their own random numbers.
"""

from __future__ import annotations

import contextlib
import io
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from torch import Tensor

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Stamp, take_stamps
from factorizer_nnunet.core.interrupts import STOPPED, StopRequest
from factorizer_nnunet.nnunet.checkpoint import read_checkpoint
from factorizer_nnunet.nnunet.dataset_json import ENDING_KEY
from factorizer_nnunet.nnunet.fold_checks import checked_folds
from factorizer_nnunet.nnunet.folds import ensure_folds
from factorizer_nnunet.nnunet.model_folder import ALL_CASES, CHECKPOINT_LATEST, FoldFolder
from factorizer_nnunet.nnunet.names import LABEL_FOLDER, SPLITS_FILE
from factorizer_nnunet.nnunet.provenance import split_sources, trained_fold
from factorizer_nnunet.nnunet.raw_dataset import raw_folder
from factorizer_nnunet.nnunet.validation_files import keep_edited, record_validation
from factorizer_nnunet.training.checkpoints import (
    Clock,
    completed_epochs,
    minutes_between_checkpoints,
    remove_drafts,
    save_atomically,
)
from factorizer_nnunet.training.data_checks import check_trained_from
from factorizer_nnunet.training.divergence import describe_divergence
from factorizer_nnunet.training.random_state import random_state, restore_random_state
from factorizer_nnunet.training.ranks import (
    Verdict,
    loss_and_verdict,
    on_first_rank,
    verdict_of_all_ranks,
    verdict_on,
)
from factorizer_nnunet.training.stepping import SteppingTrainer

# Our entry next to nnU-Net's in a checkpoint: {"losses": of the epoch's training steps, "random_state": …}, and what
# ``resume_state`` adds.
RESUME_KEY = "factorizer_resume"
SOURCES_KEY = "factorizer_trained_from"  # SHA-256 of what the fold is trained from, see ``provenance.split_sources``
_OTHER_CHECKPOINT = (
    "Move it away to continue from another checkpoint of the fold, if there is one, or start again without --c"
)


class ResumableTrainer(SteppingTrainer):
    """Saves every few minutes and on SIGTERM or SIGUSR1, and stops at a loss that is not finite.

    A training stopped by a signal exits with status ``interrupts.STOPPED``, as does its validation, which ``--c``
    repeats. With several GPUs all processes stop after the same step; the first one saves its own random state and
    losses, and the others start with new random states.

    Raises:
        UserError: FACTORIZER_CHECKPOINT_MINUTES is not a number; a checkpoint cannot be written; the loss is not
            finite.
    """

    num_iterations_per_epoch: int
    dataset_class: Any  # nnU-Net's reader of preprocessed cases, or None before it is needed

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own signature
    ) -> None:
        self._clock = Clock(minutes_between_checkpoints())
        self._split: tuple[list[str], list[str]] | None = None
        self._sources: dict[str, Stamp] = {}  # what the fold is trained from, at the start of the training
        super().__init__(plans, configuration, fold, dataset_json, device)
        signals = [signal.SIGTERM, signal.SIGUSR1]
        if self.is_ddp:
            signals.append(signal.SIGINT)  # what torch sends when the process that started the others has ended
        self._stop = StopRequest(signals)
        self._losses: list[np.ndarray] = []  # of the epoch's completed training steps
        self._resumed: dict[str, Any] = {}
        self._random_state: dict[str, Any] | None = None  # at the end of the epoch's training steps
        self._steps_of_epoch = self.num_iterations_per_epoch
        self._waiting_for_batch = False
        self._verdict: Verdict | None = None  # on the last step, if it is known already

    @property
    def has_steps(self) -> bool:
        """Whether the loaded checkpoint was saved after some steps of its epoch."""
        return bool(self._resumed.get("losses"))

    def skip_steps(self, steps: int) -> None:
        """Called if ``steps`` of the epoch were completed before a stop; schedules that count epochs need nothing."""

    def run_training(self) -> None:
        """Train as nnU-Net does, until a signal comes."""
        with self._stop.noted():
            try:
                super().run_training()
            except RuntimeError:
                # The signal may have ended the data loader's workers, too.
                if self._stop.name is None or not self._waiting_for_batch:
                    raise
                self._save_and_stop()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate as nnU-Net does and keep corrected segmentations; ``summary.json`` exists only when all is done."""
        fold, file_ending = FoldFolder(Path(self.output_folder)), self.dataset_json[ENDING_KEY]
        if self.local_rank == 0:
            for line in keep_edited(fold, file_ending):
                self.print_to_log_file(line)
            fold.summary.unlink(missing_ok=True)
        with self._stop.obeyed(self._say_stopped_in_validation):
            super().perform_actual_validation(save_probabilities)
        if self.local_rank == 0:
            labels = Path(self.preprocessed_dataset_folder_base) / LABEL_FOLDER
            record_validation(fold, labels, file_ending)

    def _say_stopped_in_validation(self) -> None:
        with contextlib.suppress(RuntimeError):  # the signal has interrupted a print
            self.print_to_log_file(f"Stopped by {self._stop.name} in the validation; --c repeats it")

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split, from folds that are written atomically and fit the preprocessed cases.

        Raises:
            UserError: the folds cannot be used; they are left as they are.
        """
        if self._split is None:  # later calls must get the same, whatever happens to the file
            if self.dataset_class is None:
                self.dataset_class = infer_dataset_class(self.preprocessed_dataset_folder)
            self._split = on_first_rank(self._checked_split)
        return self._split

    def _checked_split(self) -> tuple[list[str], list[str]]:
        if self.fold != ALL_CASES:
            cases = self.dataset_class.get_identifiers(self.preprocessed_dataset_folder)
            file = Path(self.preprocessed_dataset_folder_base) / SPLITS_FILE
            ensure_folds(file, cases)
            for warning in checked_folds(file, set(cases), raw_folder(self.plans_manager.dataset_name)).warnings:
                self.print_to_log_file(f"WARNING: {file}: {warning}")
        split: tuple[list[str], list[str]] = super().do_split()
        return split

    def on_train_start(self) -> None:
        """Start as nnU-Net does, then restore the random state of the checkpoint."""
        super().on_train_start()
        self.do_split()  # in all processes
        self._sources = on_first_rank(self._current_sources)
        if self.local_rank == 0:
            remove_drafts(Path(self.output_folder))
            if "random_state" in self._resumed:  # only now, after the data loaders have drawn their first batches
                restore_random_state(self._resumed["random_state"], self.device)
        self._clock.reset()

    def on_epoch_start(self) -> None:
        """Begin an epoch, or continue the interrupted one."""
        super().on_epoch_start()
        self._losses = [np.asarray(loss, np.float32) for loss in self._resumed.get("losses", ())]
        self._resumed = {}

    def on_train_epoch_start(self) -> None:
        """Let nnU-Net's loop run the remaining training steps."""
        super().on_train_epoch_start()
        self._steps_of_epoch = self.num_iterations_per_epoch
        done = len(self._losses)
        if done:
            self.num_iterations_per_epoch = max(0, self._steps_of_epoch - done)
            self.skip_steps(done)
            self.print_to_log_file(f"continuing after {done} of {self._steps_of_epoch} training steps")
        self._waiting_for_batch = True

    def train_step(self, batch: dict) -> dict:
        """Run one of nnU-Net's steps, then save a checkpoint or stop if it is time."""
        self._waiting_for_batch = False
        output = super().train_step(batch)
        self._losses.append(output["loss"])
        self._check_step(output["loss"], batch, f"training step {len(self._losses)}")
        if self._clock.due() and self.local_rank == 0 and not self.disable_checkpointing:
            self._save_within_epoch()
        self._waiting_for_batch = True
        return output

    def read_loss(self, loss: Tensor) -> np.ndarray:
        """Read a loss as usual; of several processes, together with what follows from the step."""
        if not self.is_ddp:
            return super().read_loss(loss)
        value, self._verdict = loss_and_verdict(loss, self._stop.name is not None)
        return value

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """Log the mean over all steps of the epoch, including those before a stop."""
        self._waiting_for_batch = False
        self.num_iterations_per_epoch = self._steps_of_epoch
        earlier = self._losses[: len(self._losses) - len(train_outputs)]
        super().on_train_epoch_end([*({"loss": loss} for loss in earlier), *train_outputs])

    def on_validation_epoch_start(self) -> None:
        """Remember the random state: after a stop in the validation steps, they start again."""
        super().on_validation_epoch_start()
        self._random_state = random_state(self.device)
        self._waiting_for_batch = True

    def validation_step(self, batch: dict) -> dict:
        """Run one of nnU-Net's steps, after which the training may stop."""
        self._waiting_for_batch = False
        output = super().validation_step(batch)
        self._check_step(output["loss"], batch, "a validation step")
        self._waiting_for_batch = True
        return output

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """End the validation steps as nnU-Net does."""
        self._waiting_for_batch = False
        super().on_validation_epoch_end(val_outputs)
        self._random_state = None

    def save_checkpoint(self, filename: str) -> None:
        """Save as nnU-Net does at the end of an epoch, with the random state; the file appears complete.

        Raises:
            UserError: it cannot be written.
        """
        self._save(Path(filename), {"losses": [], "random_state": random_state(self.device)}, {})

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Load as nnU-Net does, and remember what to resume.

        Raises:
            UserError: the file is damaged, was trained on other data, or :meth:`accept_checkpoint` refuses it.
        """
        if isinstance(filename_or_checkpoint, str):
            self.do_split()  # in all processes
            self._resumed = on_first_rank(lambda: self._checked_resume(filename_or_checkpoint))
        super().load_checkpoint(filename_or_checkpoint)

    def _checked_resume(self, file: str) -> dict[str, Any]:
        """Our entry in a checkpoint that can be resumed, read without executing code: nnU-Net unpickles it unseen."""
        checkpoint = read_checkpoint(Path(file), fix=_OTHER_CHECKPOINT)
        self.accept_checkpoint(checkpoint, file)
        check_trained_from(checkpoint.get(SOURCES_KEY, {}), self._current_sources(), file)
        resumed: dict[str, Any] = checkpoint.get(RESUME_KEY, {})
        return resumed

    def accept_checkpoint(self, checkpoint: dict[str, Any], path: str) -> None:
        """Check a checkpoint before it is loaded; subclasses raise UserError to refuse it."""

    def own_entries(self) -> dict[str, Any]:
        """Further entries of checkpoints; subclasses add theirs."""
        return {}

    def resume_state(self) -> dict[str, Any]:
        """What checkpoints contain for ``resumed_state`` after losses and random state; subclasses add theirs."""
        return {}

    @property
    def resumed_state(self) -> dict[str, Any]:
        """Losses, random state and ``resume_state`` of the loaded checkpoint, until the first epoch starts."""
        return self._resumed

    def on_train_end(self) -> None:
        """End as nnU-Net does; a record next to the final checkpoint says what it was trained from."""
        super().on_train_end()
        final = FoldFolder(Path(self.output_folder))
        if self.local_rank == 0 and not self.disable_checkpointing:
            trained_fold(final, self._sources).write_record()

    def _current_sources(self) -> dict[str, Stamp]:
        previous = self.folder_with_segs_from_previous_stage
        sources = split_sources(
            Path(self.preprocessed_dataset_folder), *self.do_split(), None if previous is None else Path(previous)
        )
        return take_stamps(sources)

    def _save_within_epoch(self) -> None:
        state = {
            "losses": [float(loss) for loss in self._losses],
            "random_state": self._random_state or random_state(self.device),
        }
        epoch = {
            "current_epoch": self.current_epoch,
            "logging": completed_epochs(self.logger.get_checkpoint(), self.current_epoch),
        }
        self._save(Path(self.output_folder) / CHECKPOINT_LATEST, state, epoch)

    def _save(self, path: Path, resume: dict[str, Any], changes: dict[str, Any]) -> None:
        memory = io.BytesIO()  # nnU-Net can save to any stream, and knows which entries it needs
        super().save_checkpoint(memory)
        if not memory.tell():  # other ranks save nothing, nor does a training without checkpoints
            return
        memory.seek(0)
        content = torch.load(memory, map_location="cpu", weights_only=False)
        sources = {name: stamp.sha256 for name, stamp in self._sources.items()}
        own = {**self.own_entries(), RESUME_KEY: {**resume, **self.resume_state()}, SOURCES_KEY: sources}
        save_atomically({**content, **changes, **own}, path)
        if path.name == CHECKPOINT_LATEST:
            self._clock.reset()

    def _check_step(self, loss: np.ndarray, batch: dict, step: str) -> None:
        """Stop if the loss is not finite, or if a signal asked for it; in all processes at once."""
        verdict, self._verdict = self._verdict, None
        if verdict is None:
            verdict = verdict_of_all_ranks(verdict_on(loss, self._stop.name is not None), self.device)
        if verdict is Verdict.STOP:
            self._save_and_stop()
        if verdict is Verdict.DIVERGED:
            kept = FoldFolder(Path(self.output_folder)).last_checkpoint()
            message = describe_divergence(
                float(loss),
                batch,
                self.network,
                where=f"{step} of epoch {self.current_epoch}",
                learning_rate=self.optimizer.param_groups[0]["lr"],
                kept=kept,
            )
            self.print_to_log_file(f"Stopped: {message}")
            raise UserError(message)

    def _save_and_stop(self) -> None:
        self._save_within_epoch()
        steps = f"{len(self._losses)} of {self._steps_of_epoch} training steps"
        saved = "nothing saved" if self.disable_checkpointing else "saved: --c continues there"
        self.print_to_log_file(
            f"Stopped by {self._stop.name or 'a signal'} in epoch {self.current_epoch} after {steps}; {saved}"
        )
        raise SystemExit(STOPPED)
