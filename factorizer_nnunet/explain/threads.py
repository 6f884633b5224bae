"""Work on many maps in threads: what costs time there, interpolating, counting and compressing, needs no Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item, _Result = TypeVar("_Item"), TypeVar("_Result")
_MOST_THREADS = 8  # each holds a map of the whole image


def in_threads(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """The results in the order of the items; after an error or an interrupt no further item is begun.

    Memory does not grow with the number of items: those that wait hold nothing.
    """
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
        try:
            return list(pool.map(work, items))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
