"""A trainer whose number of epochs follows from a time, such as six hours.

What an iteration and the final validation take is measured before the first epoch (``measuring``). After an epoch, the
remaining ones are shortened or lengthened if the training would otherwise not end in time.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import short
from factorizer_nnunet.training.budget import Budget
from factorizer_nnunet.training.measuring import MeasuringTrainer
from factorizer_nnunet.training.pace import Pace
from factorizer_nnunet.training.ranks import largest_of_all_ranks
from factorizer_nnunet.training.time_plan import (
    TIME_PLAN_FILE,
    TimePlan,
    corrected_plan,
    plan_of,
    plan_time,
    read_time_plan,
    write_time_plan,
)

_DRIFT = 0.01  # of the time: a training that would end earlier or later than that is corrected
CORRECTED = "A training step now takes"  # in the log, when the length of epochs is corrected
_TIME_KEY = "time"  # in what a checkpoint has for resuming: {"seconds": spent until then, "final": …, "plan": …}


class TimedTrainer(MeasuringTrainer):
    """Fixes the number of epochs so that training and validation end in ``budget.minutes``, if these are set.

    The time of all sessions counts, from the start of the command to the last checkpoint; not that between them.

    Raises:
        UserError: the time is too short for one epoch, or the plan of a training that is continued is missing.
    """

    budget = Budget()
    num_epochs: int

    _time_plan: TimePlan | None = None
    _continues = False
    _seconds_before = 0.0  # of earlier sessions
    _final: float | None = None  # estimated seconds of the final validation; None after an earlier version's checkpoint

    def initialize(self) -> None:
        """Initialize as usual."""
        self._pace = Pace(time.monotonic)
        super().initialize()

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Load as usual, and keep the number of epochs that was fixed at the start of the training."""
        super().load_checkpoint(filename_or_checkpoint)
        # A checkpoint of no step, with which fine-tuning starts, is not that of an interrupted training.
        self._continues = self.current_epoch > 0 or self.has_steps
        if self.budget.minutes is None:
            return
        saved = self.resumed_state.get(_TIME_KEY)
        if self._continues and saved is not None:
            plan = plan_of(saved["plan"])
            self._seconds_before, self._final = saved["seconds"], saved["final"]
        else:
            plan = read_time_plan(Path(self.output_folder))
        if plan is not None:
            self._follow(plan)

    def resume_state(self) -> dict[str, Any]:
        """Add the time that the training has taken, and its plan."""
        state = super().resume_state()
        if self._time_plan is None:
            return state
        time_state = {"seconds": self._seconds_spent(), "final": self._final, "plan": asdict(self._time_plan)}
        return {**state, _TIME_KEY: time_state}

    def on_train_start(self) -> None:
        """Start as usual, then fix the number of epochs."""
        super().on_train_start()
        if self.budget.minutes is None or self._time_plan is not None:
            return
        folder = Path(self.output_folder)
        if self._continues:
            raise UserError(
                f"{folder / TIME_PLAN_FILE}, which gives the number of epochs, is missing: restore it, or train again "
                "without --c"
            )
        times = self._measure(self.budget.minutes)
        plan = plan_time(self.budget.minutes, times, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch)
        if self.local_rank == 0:
            write_time_plan(plan, times, folder)
        self._final = times.final
        self._follow(plan)
        self.print_to_log_file(
            f"{self.budget.minutes:g} minutes: {plan.epochs} epochs of {plan.iterations_per_epoch} iterations. "
            f"A training step takes {short(times.step)} s, a validation step {short(times.validation_step)} s, and the "
            f"validation at the end about {times.final:.0f} s"
        )

    def on_train_epoch_start(self) -> None:
        """Start as usual."""
        super().on_train_epoch_start()
        self._pace.steps_begin()

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """End as usual."""
        self._pace.steps_end(len(train_outputs))
        super().on_train_epoch_end(train_outputs)

    def on_epoch_end(self) -> None:
        """End an epoch as usual, then correct the length of the remaining ones."""
        super().on_epoch_end()
        self._pace.epoch_ends()
        minutes, plan, final = self.budget.minutes, self._time_plan, self._final
        remain = self.current_epoch < self.num_epochs and self._pace.is_known
        if minutes is not None and plan is not None and final is not None and remain:
            self._correct_length(plan, minutes, final)

    def _correct_length(self, plan: TimePlan, minutes: float, final: float) -> None:
        """Follow another plan if, at the pace of recent epochs, this one would not end in time."""
        measured = (self._pace.step, self._pace.others, self._seconds_spent())
        step, others, spent = (largest_of_all_ranks(seconds, self.device) for seconds in measured)
        left = 60 * minutes - spent - final
        planned = (self.num_epochs - self.current_epoch) * (self.num_iterations_per_epoch * step + others)
        if abs(planned - left) <= _DRIFT * 60 * minutes:
            return
        corrected = corrected_plan(plan, self.current_epoch, left, step, others)
        if corrected.iterations_per_epoch == plan.iterations_per_epoch:
            return
        self.print_to_log_file(
            f"{CORRECTED} {short(step)} s: {corrected.iterations_per_epoch} instead of "
            f"{plan.iterations_per_epoch} iterations an epoch from now on, to end in {minutes:g} minutes"
        )
        self._follow(corrected)

    def _seconds_spent(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def change_length(self) -> None:
        """Called when number and length of the epochs have changed, for what follows from them."""

    def _follow(self, plan: TimePlan) -> None:
        self._time_plan = plan
        self.num_epochs = plan.epochs
        self.num_iterations_per_epoch = plan.iterations_per_epoch
        self.num_val_iterations_per_epoch = plan.validation_iterations
        self.change_length()
