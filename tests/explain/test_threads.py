"""Threads return results in order and stop at the first error."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from factorizer_nnunet.explain import threads
from factorizer_nnunet.explain.threads import in_threads


def test_results_come_in_the_order_of_the_items() -> None:
    def late_first(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return number**2

    assert in_threads(late_first, range(50), 1) == [number**2 for number in range(50)]
    assert in_threads(late_first, [], 1) == []


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_after_an_error_no_further_item_is_started(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    monkeypatch.setattr(threads, "core_count", lambda: 3)
    started, lock, end = [], threading.Lock(), threading.Event()

    def fail(number: int) -> None:
        with lock:
            started.append(number)
        if number == 1:
            raise error(f"no space left for {number}")
        end.wait(3)  # the first one is still at work when the second fails

    with pytest.raises(error, match="no space left for 1"):
        in_threads(fail, range(1000), 1)
    assert len(started) <= 4


@pytest.mark.parametrize(("bytes_each", "most"), [(1, 3), (3 * 2**30, 1), (2**40, 1), (2 * 2**30, 2)])
def test_large_items_run_in_fewer_threads(monkeypatch: pytest.MonkeyPatch, bytes_each: int, most: int) -> None:
    monkeypatch.setattr(threads, "core_count", lambda: 3)
    torch_threads = torch.get_num_threads()
    at_work, peak, lock = [], [], threading.Lock()

    def work(number: int) -> int:
        with lock:
            at_work.append(number)
            peak.append(len(at_work))
        time.sleep(0.02)
        with lock:
            at_work.remove(number)
        return torch.get_num_threads()

    assert set(in_threads(work, range(9), bytes_each)) == {1}
    assert max(peak) == most
    assert torch.get_num_threads() == torch_threads
