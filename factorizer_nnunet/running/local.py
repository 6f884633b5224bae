"""The local executor: a queue over this machine's worker slots. A failed step stops only those that need it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from factorizer_nnunet.core.processes import end_marked
from factorizer_nnunet.running.display import Display
from factorizer_nnunet.running.estimate import Estimate, estimate_trainings
from factorizer_nnunet.running.execution import NO_SPACE, Children, run_step
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.progress import short_name, step_progress
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.step import Step
from factorizer_nnunet.running.steps import is_planning
from factorizer_nnunet.running.worker_slots import WorkerSlot, command_environment

OWNER_VARIABLE = "FACTORIZER_NNUNET_RUN"  # names the data set's folder of runs in every process that a run starts
_LOOK_SECONDS = 10.0
_GRACE_SECONDS = 60.0  # a training that is asked to end saves first

Running = dict[Future[str | None], tuple[Step, WorkerSlot]]


@dataclass
class StepOutcome:
    """What became of the steps: names of those done, reasons of those failed; all others wait for these."""

    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)


class LocalExecutor:
    """Runs steps on this machine.

    Args:
        slots: where steps run that need the device; without a GPU, all steps.
    """

    def __init__(self, settings: RunSettings, slots: Sequence[WorkerSlot]) -> None:
        self._settings = settings
        self._paths = settings.paths
        self._free = list(slots)
        # The slots of GPUs are for steps that need a GPU; one more runs preprocessing and merging.
        self._host = [WorkerSlot("processor")] if settings.device == "cuda" else self._free
        self._count = len(slots)
        self._children = Children()

    def run(self, steps: Sequence[Step], check: Callable[[], None]) -> StepOutcome:
        """Run all steps that are not done.

        Args:
            check: called once plans exist, before anything long; raises what it finds wrong.

        Raises:
            UserError: from ``check``.
            KeyboardInterrupt: after all commands have been ended.
        """
        outcome = StepOutcome()
        running: Running = {}
        planning = {step.name for step in steps if is_planning(step)}
        checked = False
        display = Display(len(steps))
        estimate = estimate_trainings(self._settings, steps, self._count)
        display.say(str(estimate))
        with ThreadPoolExecutor(self._count + 1) as pool, contextlib.closing(display):
            try:
                while True:
                    for step in self._next(steps, outcome, running, display):
                        if not checked and planning <= outcome.done:
                            check()
                            checked = True
                        self._start(step, pool, running, display)
                    if not running:
                        return outcome
                    while not (ended := wait(running, _LOOK_SECONDS, FIRST_COMPLETED).done):
                        self._show(running, display)
                        if estimate.unknown:
                            estimate = self._better(estimate, steps, display)
                    self._collect(ended, running, outcome, display)
            finally:
                self._stop()

    def _show(self, running: Running, display: Display) -> None:
        """Show the progress of all running steps."""
        steps = [step for step, _ in running.values()]
        progress = [step_progress(step, self._settings, step.look()) or "starting" for step in steps]
        names = [short_name(step, self._settings) for step in steps]
        display.show([f"{name}  {text}" for name, text in zip(names, progress, strict=True)])

    def _better(self, before: Estimate, steps: Sequence[Step], display: Display) -> Estimate:
        """The estimate once more trainings have timed an epoch, then also shown."""
        estimate = estimate_trainings(self._settings, steps, self._count)
        if estimate.unknown < before.unknown:
            display.say(str(estimate))
        return estimate

    def _next(self, steps: Sequence[Step], outcome: StepOutcome, running: Running, display: Display) -> list[Step]:
        """Steps to start now, at most as many as there are free slots; those that are done already are noted."""
        if any(NO_SPACE in error for error in outcome.failed.values()):
            return []
        chosen: list[Step] = []
        free = {id(slots): len(slots) for slots in (self._free, self._host)}
        settled = outcome.done | outcome.failed.keys() | {step.name for step, _ in running.values()}
        for step in steps:
            if step.name in settled or not outcome.done.issuperset(step.after):
                continue
            slots, state = id(self._slots(step)), step.look()
            if state.done:
                outcome.done.add(step.name)
                display.count_done()
            elif state.blocked:
                outcome.failed[step.name] = state.blocked
                display.say(f"{step.name} FAILED: {state.blocked}")
            elif free[slots] > 0:
                free[slots] -= 1
                chosen.append(step)
        return chosen

    def _stop(self) -> None:
        """End all commands: trainings may save first, unless a second interrupt comes."""
        try:
            self._children.stop(_GRACE_SECONDS)
        except KeyboardInterrupt:
            self._children.stop(0)
            raise

    def _slots(self, step: Step) -> list[WorkerSlot]:
        return self._free if step.on_device else self._host

    def _start(self, step: Step, pool: ThreadPoolExecutor, running: Running, display: Display) -> None:
        slot = self._slots(step).pop(0)
        display.say(f"{step.name} starts on {slot.name}; log: {self._paths.log(step.name)}")
        environment = command_environment(self._settings.folders, slot, self._settings.device, os.environ)
        environment[OWNER_VARIABLE] = owner(self._paths)
        future = pool.submit(run_step, step, self._paths, environment, self._children)
        running[future] = (step, slot)

    def _collect(
        self, ended: Iterable[Future[str | None]], running: Running, outcome: StepOutcome, display: Display
    ) -> None:
        """Note what became of steps that have ended, and free their slots."""
        for future in ended:
            step, slot = running.pop(future)
            self._slots(step).append(slot)
            error = future.result()
            if error is None:
                outcome.done.add(step.name)
                display.count_done()
                display.say(f"{step.name} done")
            else:
                outcome.failed[step.name] = error
                display.say(f"{step.name} FAILED: {error}\n  log: {self._paths.log(step.name)}")


def end_left_over(paths: RunPaths) -> int:
    """End commands that a killed run over this data set left running; call it while holding the run's lock."""
    return end_marked(OWNER_VARIABLE, owner(paths))


def owner(paths: RunPaths) -> str:
    """The same for all runs over a data set, of which only one is in progress at a time."""
    return str(paths.unnamed.run)
