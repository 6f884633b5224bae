"""Signals: SIGTERM ends long work as Ctrl-C does, so that it cleans up; a training saves first."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType

# Exit status of a training that a signal stopped: EX_TEMPFAIL ("try again") of sysexits.h, since the same command with
# --c continues. A plain kill gives 128 plus the signal's number, an error 1.
STOPPED = 75


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt within the block; for the main thread only.

    A signal that was ignored before stays ignored: ``nohup`` needs that.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    handled = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class StopRequest:
    """Whether one of some signals has arrived; works within blocks of :meth:`noted` and :meth:`obeyed` only.

    Args:
        signals: their numbers.

    Attributes:
        name: the first signal that arrived, such as ``SIGTERM``; None before.
    """

    def __init__(self, signals: Iterable[int] = (signal.SIGTERM, signal.SIGUSR1)) -> None:
        self.signals = tuple(signals)
        self.name: str | None = None

    def noted(self) -> contextlib.AbstractContextManager[None]:
        """Only note a signal: the block checks ``name`` when it can stop."""
        return self._handled(at_once=False)

    def obeyed(self) -> contextlib.AbstractContextManager[None]:
        """End the process with status :data:`STOPPED` as soon as a signal arrives, or if one was noted earlier."""
        return self._handled(at_once=True)

    @contextlib.contextmanager
    def _handled(self, at_once: bool) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
            yield
            return
        if at_once and self.name is not None:
            raise SystemExit(STOPPED)
        owner = os.getpid()

        def handle(number: int, frame: FrameType | None) -> None:
            if os.getpid() != owner:
                # A forked worker inherits the handler, but must end when its parent or the system signals it.
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
                return
            self.name = self.name or signal.Signals(number).name
            if at_once:
                raise SystemExit(STOPPED)

        previous = {number: signal.signal(number, handle) for number in self.signals}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
