"""Worker processes: they end with their parent, and the pool survives if one of them is killed."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import ParamSpec, TypeVar

from tqdm import tqdm

from factorizer_nnunet.core.errors import UserError

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


class WorkerPool:
    """Runs functions in worker processes, within a ``with`` block.

    Leaving the block, also by an error or an interruption, drops calls that have not begun and waits for the others.

    Args:
        count: number of processes, which start with the first call; with 0, functions run at once in this process.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._executor: ProcessPoolExecutor | None = None

    def submit(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Call ``function`` in a process.

        Returns:
            its future result. If a process was killed, most likely for lack of memory, all calls in progress raise
            ``BrokenProcessPool``; later calls start new processes.
        """
        if self.count == 0:
            return _finished(function, *args, **kwargs)
        try:
            return self._processes().submit(function, *args, **kwargs)
        except BrokenProcessPool:
            self._executor = None
            return self._processes().submit(function, *args, **kwargs)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def _processes(self) -> ProcessPoolExecutor:
        if self._executor is None:
            # Spawned, not forked: a fork would copy locks that threads of libraries hold.
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self.count, mp_context=context, initializer=end_with_parent)
        return self._executor


def map_unordered(
    function: Callable[[Argument], Result], arguments: Sequence[Argument], num_workers: int, description: str
) -> Iterator[Result]:
    """Yield the results of ``function`` as they come, with a progress bar.

    Args:
        function: called once per argument.
        arguments: one per case.
        num_workers: number of processes; with 1, this process does the work.
        description: of the progress bar.

    Raises:
        UserError: a process was killed.
    """
    with (
        tqdm(total=len(arguments), desc=description, unit="case", disable=None) as bar,
        WorkerPool(num_workers if num_workers > 1 else 0) as pool,
    ):
        results: Iterable[Result] = map(function, arguments)
        if pool.count > 0:
            results = (future.result() for future in as_completed([pool.submit(function, one) for one in arguments]))
        try:
            for result in results:
                bar.update()
                yield result
        except BrokenProcessPool as error:
            raise UserError(
                "a process was killed, probably because memory ran out: allow fewer at a time, --jobs or -np"
            ) from error


def _finished(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Future[Result]:
    future: Future[Result] = Future()
    try:
        future.set_result(function(*args, **kwargs))
    except Exception as error:
        future.set_exception(error)
    return future


def end_with_parent() -> None:
    """End this worker if its parent is killed: it would go on writing, or wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a worker

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def end_forked_workers_with_parent(owner: object) -> None:
    """Call :func:`end_with_parent` in the processes that ``multiprocessing`` forks while ``owner`` exists.

    For workers of other packages, which offer no place to call it. Those that are spawned, on other systems than Linux
    and from Python 3.14 on, do not hear of it.
    """
    multiprocessing.util.register_after_fork(owner, lambda _: end_with_parent())
