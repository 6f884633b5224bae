"""Work in threads: in order, and ended by the first error."""

from __future__ import annotations

import threading
import time

import pytest

from factorizer_nnunet.explain.threads import in_threads


def test_results_come_in_the_order_of_the_items() -> None:
    def late_first(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return number**2

    assert in_threads(late_first, range(50)) == [number**2 for number in range(50)]
    assert in_threads(late_first, []) == []


def test_after_an_error_nothing_more_is_begun() -> None:
    begun, lock = [], threading.Lock()

    def fail(number: int) -> None:
        with lock:
            begun.append(number)
        time.sleep(0.01)
        raise OSError(f"no space left for {number}")

    with pytest.raises(OSError, match="no space left for 0"):
        in_threads(fail, range(1000))
    assert len(begun) < 100
