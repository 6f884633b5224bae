"""Process many maps in threads: what takes time (interpolation, counting, compression) releases the GIL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from factorizer_nnunet.core.processes import core_count
from factorizer_nnunet.prediction.devices import torch_threads

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_MAX_THREADS = 8
_MAX_BYTES = 4 * 2**30  # of all threads together


def in_threads(work: Callable[[_Item], _Result], items: Sequence[_Item], bytes_each: int) -> list[_Result]:
    """Return the results in the order of the items; after an error or an interrupt no further item is started.

    Memory does not grow with the number of items. Torch uses one thread for each item; items that need much memory run
    in fewer threads.
    """
    threads = max(1, min(core_count(), _MAX_THREADS, _MAX_BYTES // max(bytes_each, 1)))
    with torch_threads(1), ThreadPoolExecutor(threads) as pool:
        try:
            futures = [pool.submit(work, item) for item in items]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    failed = [future for future in futures if not future.cancelled() and future.exception() is not None]
    return [future.result() for future in failed[:1] or futures]
