"""A polite kill interrupts what is going on, and what was to be ignored stays ignored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from factorizer_nnunet.core.interrupts import STOPPED, terminable

WITH_A_POOL = """
import multiprocessing, os, signal, sys, time
from factorizer_nnunet.core.interrupts import StopRequest

if __name__ == "__main__":
    with StopRequest().obeyed(lambda: print("stopped")), multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.apply(len, ("",))  # one worker at least waits for a task now, and holds the lock of the queue
        time.sleep(1)
        os.killpg(0, signal.SIGTERM)
        time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_polite_kill_interrupts_the_block_alone(number: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        with pytest.raises(KeyboardInterrupt), terminable():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_under_nohup_a_lost_terminal_ends_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminable():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_to_all_processes_ends_them_at_once(tmp_path: Path) -> None:
    script = tmp_path / "with_a_pool.py"
    script.write_text(WITH_A_POOL)
    done = subprocess.run(
        [sys.executable, script], start_new_session=True, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (STOPPED, "stopped\n"), done.stderr
