"""What a step of a run is, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.running.command_lines import Command


@dataclass(frozen=True)
class State:
    """Whether a step is done, its progress in words, and files to remove before it is attempted again."""

    done: bool
    progress: str = ""
    left_over: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a run.

    Attributes:
        after: names of the steps that must be done before.
        state: reads the state from the disk.
        commands: builds its commands, from scratch; called when all steps before are done.
        on_device: whether it computes on the GPU, if there is one.
        options: more options for this attempt, such as ``--c``, appended to each command.
        appears: a folder that the commands write under a temporary name; it is renamed when they have succeeded.
        finish: called in this process after the commands.
        trains: the model and fold that it trains, None for other steps.
    """

    name: str
    after: tuple[str, ...]
    state: Callable[[], State]
    commands: Callable[[], list[Command]]
    on_device: bool = False
    options: Callable[[], tuple[str, ...]] = lambda: ()
    appears: Path | None = None
    finish: Callable[[], None] = lambda: None
    trains: tuple[ModelName, int] | None = None
