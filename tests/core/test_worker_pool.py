"""Worker processes: killed ones, killed parents, results and errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from killed_processes import command_of, wait_for

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.worker_pool import WorkerPool, map_unordered


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_argument_has_its_result(num_workers: int) -> None:
    assert sorted(map_unordered(abs, [-3, 1, -2], num_workers, "counting")) == [1, 2, 3]


def test_without_processes_functions_run_at_once() -> None:
    with WorkerPool(0) as pool:
        assert pool.submit(os.getpid).result() == os.getpid()
        assert isinstance(pool.submit(int, "one").exception(), ValueError)


def test_a_killed_worker_is_reported() -> None:
    with pytest.raises(UserError, match="a process was killed, .*fewer at a time, --jobs or -np"):
        list(map_unordered(os._exit, [1, 1, 1], 2, "dying"))


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from factorizer_nnunet.core.worker_pool import map_unordered\n"
        "if __name__ == '__main__':\n"
        "    list(map_unordered(time.sleep, [60, 60], 2, 'sleeping'))\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script)])
    workers = wait_for(lambda: [pid for pid in _children(parent.pid) if "spawn_main" in command_of(pid)], 2)
    parent.kill()
    parent.wait()
    wait_for(lambda: [pid for pid in workers if "spawn_main" not in command_of(pid)], 2)


def _children(pid: int) -> list[int]:
    return [int(p) for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()]
