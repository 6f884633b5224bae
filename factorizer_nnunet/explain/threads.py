"""Work on many maps in threads: what costs time there, interpolating, counting and compressing, needs no Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from factorizer_nnunet.core.processes import core_count

_Item, _Result = TypeVar("_Item"), TypeVar("_Result")
_MOST_THREADS = 8
_MOST_BYTES = 4 * 2**30  # that all threads together may need


def in_threads(work: Callable[[_Item], _Result], items: Sequence[_Item], bytes_each: int) -> list[_Result]:
    """The results in the order of the items; after an error or an interrupt no further item is begun.

    Memory does not grow with the number of items: those that wait hold nothing.

    Args:
        work: done for each item; torch has one thread in it.
        items: as many as there are.
        bytes_each: memory that one item needs while it is worked on; fewer are, where it is much.
    """
    threads = max(1, min(core_count(), _MOST_THREADS, _MOST_BYTES // max(bytes_each, 1)))
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # in the pool's threads, too, which take it when they start
    try:
        with ThreadPoolExecutor(threads) as pool:
            try:
                futures = [pool.submit(work, item) for item in items]
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        failed = [future for future in futures if not future.cancelled() and future.exception() is not None]
        return [future.result() for future in failed[:1] or futures]
    finally:
        torch.set_num_threads(before)
