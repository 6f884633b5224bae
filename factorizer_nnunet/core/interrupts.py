"""Signals: SIGTERM ends long work as Ctrl-C does, so that it cleans up; a training saves first."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import NoReturn

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


def end_process(status: int) -> NoReturn:
    """End this process and its children at once, without waiting for anything.

    A signal often goes to the children, too (``timeout``, SLURM). A worker of a ``multiprocessing.Pool`` that it ends
    while waiting for a task never releases the lock of the queue, and the pool waits for that when it is closed.
    """
    for child in multiprocessing.active_children():
        child.kill()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # gone, closed, or being written to
            stream.flush()
    os._exit(status)


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
        return self._handled(lambda: None)

    @contextlib.contextmanager
    def obeyed(self, farewell: Callable[[], None]) -> Iterator[None]:
        """End the process with status :data:`STOPPED` as soon as a signal arrives, or if one was noted earlier.

        Args:
            farewell: called before that.
        """

        def end() -> None:
            try:
                farewell()
            except BaseException:
                traceback.print_exc()
            end_process(STOPPED)

        if self.name is not None:
            end()
        with self._handled(end):
            yield

    @contextlib.contextmanager
    def _handled(self, action: Callable[[], None]) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
            yield
            return
        owner = os.getpid()

        def handle(number: int, frame: FrameType | None) -> None:
            if os.getpid() != owner:
                # A forked worker inherits the handler, but must end when its parent or the system signals it.
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
                return
            self.name = self.name or signal.Signals(number).name
            action()

        previous = {number: signal.signal(number, handle) for number in self.signals}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
