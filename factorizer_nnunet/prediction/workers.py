"""Worker processes that outlive the death of one of them, and end with their parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any


class Workers:
    """Runs functions in ``count`` processes; with 0, at once in this one."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future:
        """The future result; of a process that died (most likely for lack of memory), ``BrokenProcessPool``."""
        if self.count == 0:
            return _done(function, *arguments)
        try:
            return self._processes().submit(function, *arguments)
        except BrokenProcessPool:
            self._pool = None  # one that died takes the pool with it
            return self._processes().submit(function, *arguments)

    def shutdown(self) -> None:
        """Drop what has not begun and wait for what has."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _processes(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Started, not forked: a fork would copy locks that threads of torch hold.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_end_with_parent)
        return self._pool


@contextlib.contextmanager
def workers(count: int) -> Iterator[Workers]:
    """Workers for a block."""
    made = Workers(count)
    try:
        yield made
    finally:
        made.shutdown()


def _done(function: Callable[..., Any], *arguments: object) -> Future:
    future: Future = Future()
    try:
        future.set_result(function(*arguments))
    except Exception as error:
        future.set_exception(error)
    return future


def _end_with_parent() -> None:
    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)  # else it would wait for work for ever

    threading.Thread(target=wait, daemon=True).start()
