"""What a step of a run is, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.provenance import Derived
from factorizer_nnunet.running.command_lines import Command


@dataclass(frozen=True)
class State:
    """How far a step is.

    Attributes:
        done: whether nothing is left to do.
        progress: in words.
        incomplete: files that a kill cut off; they are set aside before another attempt.
        outdated: files and folders made from something that has changed since; they are set aside, too.
        drafts: files that never got their names; they are removed.
        blocked: why no attempt can be made, with what the user can do; empty if one can.
    """

    done: bool
    progress: str = ""
    incomplete: tuple[Path, ...] = ()
    outdated: tuple[Path, ...] = ()
    drafts: tuple[Path, ...] = ()
    blocked: str = ""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a run.

    Attributes:
        after: names of the steps that must be done before.
        state: reads the state from the disk; may raise OSError or UserError, see ``look``.
        commands: builds its commands, from scratch; called when all steps before are done.
        on_device: whether it computes on the GPU, if there is one.
        options: more options for this attempt, such as ``--c``, appended to each command.
        appears: a folder that the commands write under a temporary name; it is renamed when they have succeeded.
        prepare: called first, while what is outdated is still in its place; returns lines for the log.
        finish: called in this process after the commands.
        derived: its result and what that is made from, which is recorded; None if it is not. Called when all steps
            before are done.
        recorded_first: write the record before the commands, for results that appear file by file in an empty place.
        trains: the model and fold that it trains, None for other steps.
    """

    name: str
    after: tuple[str, ...]
    state: Callable[[], State]
    commands: Callable[[], list[Command]]
    on_device: bool = False
    options: Callable[[], tuple[str, ...]] = lambda: ()
    appears: Path | None = None
    prepare: Callable[[], list[str]] = list
    finish: Callable[[], None] = lambda: None
    derived: Callable[[], Derived] | None = None
    recorded_first: bool = False
    trains: tuple[ModelName, int] | None = None

    def look(self) -> State:
        """The state; blocked if it cannot be read, since nothing may be redone then."""
        try:
            return self.state()
        except (OSError, UserError) as error:
            return State(False, blocked=str(error))
