"""Work on many cases in several processes, with a progress bar, that stops at once when it is interrupted."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from factorizer_nnunet.core.errors import UserError

Argument, Result = TypeVar("Argument"), TypeVar("Result")


def in_processes(
    function: Callable[[Argument], Result], arguments: Sequence[Argument], jobs: int, what: str
) -> Iterator[Result]:
    """Results of ``function`` as they come, from ``jobs`` processes, with a progress bar called ``what``.

    Raises:
        UserError: a process was killed.
    """
    with tqdm(total=len(arguments), desc=what, unit="case", disable=None) as bar, _workers(jobs) as pool:
        results: Iterable[Result] = map(function, arguments)
        if pool is not None:
            results = (future.result() for future in as_completed([pool.submit(function, a) for a in arguments]))
        for result in results:
            bar.update()
            yield result


@contextlib.contextmanager
def _workers(jobs: int) -> Iterator[ProcessPoolExecutor | None]:
    """A pool of processes, or None where one job needs none; what has not begun is dropped on an error."""
    if jobs <= 1:
        yield None
        return
    # Started, not forked: a fork would copy locks of libraries that are held by threads.
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise UserError(
            "a process was killed, probably because memory ran out: allow fewer at a time, --jobs or -np"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed outright would go on writing."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
