"""The local executor: a queue over this machine's lanes. A failed step stops only those that need it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from tqdm import tqdm

from factorizer_nnunet.core.processes import end_marked
from factorizer_nnunet.running.execution import NO_SPACE, Children, run_step
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.progress import short_name, step_progress
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.steps import Step
from factorizer_nnunet.running.worker_slots import WorkerSlot, command_environment

OWNER_VARIABLE = "FACTORIZER_NNUNET_RUN"  # holds the run's folder in every process that a local run starts
_LOOK_SECONDS = 10.0
_GRACE_SECONDS = 60.0  # a trainer that is asked to end saves first
_HOST = WorkerSlot("processor")  # beside GPUs: preprocessing, merging


@dataclass
class StepOutcome:
    """What became of the steps: names of those done, reasons of those failed; all others wait for these."""

    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)


class LocalExecutor:
    """Runs steps on this machine.

    Args:
        lanes: where steps run that need the device; without a GPU, all steps.
    """

    def __init__(self, settings: RunSettings, lanes: Sequence[WorkerSlot]) -> None:
        self._settings = settings
        self._paths = RunPaths(settings.folders, settings.dataset)
        self._free = list(lanes)
        self._host = [_HOST] if settings.device == "cuda" else self._free  # a GPU's lanes are for the GPU
        self._threads = len(lanes) + 1
        self._children = Children()

    def run(self, steps: Sequence[Step], check: Callable[[], None]) -> StepOutcome:
        """Run all that is not done.

        Args:
            check: called once plans are there, before anything long; raises what it finds wrong.

        Raises:
            UserError: from ``check``.
            KeyboardInterrupt: after all commands have been ended.
        """
        outcome, running = StepOutcome(), {}
        planned = {step.name for step in steps if step.name.startswith(("fingerprint", "plan."))}
        checked = False
        bar = tqdm(total=len(steps), desc="steps", unit="step", dynamic_ncols=True, mininterval=1, disable=None)
        with ThreadPoolExecutor(self._threads) as pool, bar:
            try:
                while True:
                    for step in self._next(steps, outcome, running, bar):
                        if not checked and planned <= outcome.done:
                            check()
                            checked = True
                        self._start(step, pool, running)
                    if not running:
                        return outcome
                    self._collect(running, outcome, bar)
            finally:
                self._stop()

    def _next(self, steps: Sequence[Step], outcome: StepOutcome, running: dict, bar: tqdm) -> list[Step]:
        """Steps to start now, as many as there are lanes; what turns out to be done is noted."""
        chosen: list[Step] = []
        free = {id(lanes): len(lanes) for lanes in (self._free, self._host)}
        busy = {step.name for step, _ in running.values()}
        if any(NO_SPACE in error for error in outcome.failed.values()):
            return []
        for step in steps:
            if step.name in outcome.done or step.name in outcome.failed or step.name in busy:
                continue
            if not outcome.done.issuperset(step.after):
                continue
            lanes = id(self._lanes(step))
            if step.state().done:
                outcome.done.add(step.name)
                bar.update()
            elif free[lanes] > 0:
                free[lanes] -= 1
                chosen.append(step)
        return chosen

    def _stop(self) -> None:
        """End all commands: trainings may save first, unless whoever interrupts does so again."""
        try:
            self._children.stop(_GRACE_SECONDS)
        except KeyboardInterrupt:
            self._children.stop(0)
            raise

    def _lanes(self, step: Step) -> list[WorkerSlot]:
        return self._free if step.on_device else self._host

    def _start(self, step: Step, pool: ThreadPoolExecutor, running: dict[Future, tuple[Step, WorkerSlot]]) -> None:
        lane = self._lanes(step).pop(0)
        tqdm.write(f"{step.name} starts on {lane.name}; log: {self._paths.log(step.name)}")
        environment = command_environment(self._settings.folders, lane, self._settings.device, os.environ)
        environment[OWNER_VARIABLE] = str(self._paths.run)
        future = pool.submit(run_step, step, self._paths, environment, self._children)
        running[future] = (step, lane)

    def _collect(self, running: dict[Future, tuple[Step, WorkerSlot]], outcome: StepOutcome, bar: tqdm) -> None:
        """Wait for a step to end, telling meanwhile how far all are."""
        while not (ended := wait(running, _LOOK_SECONDS, FIRST_COMPLETED).done):
            told = [f"{short_name(step)} {step_progress(step, self._paths)}" for step, _ in running.values()]
            bar.set_postfix_str("; ".join(told))
        for future in ended:
            step, lane = running.pop(future)
            self._lanes(step).append(lane)
            error = future.result()
            if error is None:
                outcome.done.add(step.name)
                bar.update()
                tqdm.write(f"{step.name} done")
            else:
                outcome.failed[step.name] = error
                tqdm.write(f"{step.name} FAILED: {error}\n  log: {self._paths.log(step.name)}")


def end_left_over(paths: RunPaths) -> int:
    """End commands that a killed run over this data set left; call it while holding the run's lock."""
    return end_marked(OWNER_VARIABLE, str(paths.run))
