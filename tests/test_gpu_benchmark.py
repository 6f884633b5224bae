"""The benchmark for GPUs, where there is none: its parts, their state, its page, and what each part runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu.page import BEGIN, END, results_of, section, with_section
from benchmarks.gpu.parts import STATE_FILE, Ended, Part, State, ended, run_parts
from benchmarks.step_operators import LAUNCHES
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.ops import dispatch
from factorizer_nnunet.nnunet.environment import AUGMENTATION_VARIABLE, FOLDER_VARIABLES

ROOT = Path(__file__).resolve().parents[1]
MACHINE = {"device": "a GPU", "cores": 8, "torch": "2.14", "cuda": "13.0", "revision": "0123456789abcdef"}


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="this machine has no CUDA device that torch can use"):
        command.main(["--work", str(tmp_path / "work"), "--docs", str(tmp_path / "docs")])
    assert not list(tmp_path.iterdir())


def test_its_own_modules_need_no_nnunet() -> None:
    modules = "import benchmarks.gpu.__main__, benchmarks.gpu.kernels"
    code = f"import sys; sys.modules.update(nnunetv2=None, batchgeneratorsv2=None); {modules}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def python(name: str, code: str, seconds: float = 10, **options: object) -> Part:
    return Part(name=name, seconds=seconds, command=("-S", "-c", code), **options)  # type: ignore[arg-type]


def test_parts_end_in_time_and_the_next_run_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.parts._GRACE_SECONDS", 0.5)
    monkeypatch.setattr("benchmarks.gpu.parts._LEAST_SECONDS", 0.1)
    again = tmp_path / "again"
    wait = f"import time, pathlib; time.sleep(60 * (not pathlib.Path({str(again)!r}).exists()))"
    parts = {
        part.name: part
        for part in (
            python("long", wait, seconds=0.5),
            python("short", "print('done')"),
            python("tests", "import sys; sys.exit(1)", fine=(0, 1)),
            python("broken", "raise ValueError"),
            python("elsewhere", "print('never')", needs=("no_such_package",)),
        )
    }
    run_parts(list(parts.values()), tmp_path, 60, lambda line: None)
    assert {name: ended(tmp_path, part).state for name, part in parts.items()} == {
        "long": State.UNFINISHED,
        "short": State.DONE,
        "tests": State.DONE,
        "broken": State.FAILED,
        "elsewhere": State.WAITING,
    }
    again.touch()
    lines: list[str] = []
    run_parts(list(parts.values()), tmp_path, 600, lines.append)
    assert [line.partition(":")[0] for line in lines] == ["long", "long", "broken", "broken"]
    assert ended(tmp_path, parts["long"]).state is State.DONE
    assert "ValueError" in (tmp_path / "broken" / "log.txt").read_text()


def test_parts_get_what_they_need_in_order_and_more_if_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, limits = [0.0], []

    def ran(part: Part, work: Path, limit: float) -> Ended:
        limits.append((part.name, limit))
        now[0] += limit
        return Ended(State.UNFINISHED, limit)

    monkeypatch.setattr("benchmarks.gpu.parts.run_part", ran)
    parts = [python(name, "", seconds=100) for name in "abc"]
    for seconds, expected in ((20 + 150, [("a", 100), ("b", 50)]), (20 + 600, [("a", 200), ("b", 200), ("c", 200)])):
        limits.clear()
        now[0] = 0.0
        run_parts(parts, tmp_path, seconds, lambda line: None, lambda: now[0])
        assert limits == expected


def test_a_part_for_which_no_time_is_left_waits(tmp_path: Path) -> None:
    lines: list[str] = []
    part = python("short", "print('done')")
    run_parts([part], tmp_path, 21, lines.append)
    assert lines == ["short: left for the next run, 1 s are too few"]
    assert ended(tmp_path, part) == Ended(State.WAITING)


def test_results_of_another_machine_are_not_mixed(tmp_path: Path) -> None:
    command.check_same_machine(tmp_path, MACHINE)
    command.check_same_machine(tmp_path, dict(MACHINE))
    with pytest.raises(UserError, match=r"results of another revision \(0123456789abcdef, now 9\): name another"):
        command.check_same_machine(tmp_path, {**MACHINE, "revision": "9"})


def test_every_part_names_a_module_and_files_that_exist(tmp_path: Path) -> None:
    parts = command.all_parts(tmp_path, tmp_path / "Dataset004_Hippocampus")
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        module = part.command[1].replace(".", "/")
        assert module == "pytest" or any((ROOT / f"{module}{end}").exists() for end in (".py", "/__main__.py"))
        assert all((ROOT / word).exists() for word in part.command if word.startswith("tests/"))


def test_the_page_has_what_was_measured_and_what_was_left_out(tmp_path: Path) -> None:
    parts = command.all_parts(tmp_path, None)
    contents = {
        "kernels/kernels.json": {
            "bytes_per_s": 4e12,
            "different_calls": 7,
            "rows": [{"operator": "depthwise", "shape": [2, 9, 9, 9, 32], "calls": 3, "ms": 0.4, "floor_ms": 0.1}],
        },
        "training, nnU-Net/training.json": {
            "samples_per_s": 17.0,
            "median_step_s": 0.12,
            "median_step_without_loading_s": 0.04,
            "peak_bytes": 6 * 2**30,
            "workers": 12,
        },
        "training, device augments/training.json": {
            "samples_per_s": 51.24,
            "median_step_s": 0.036,
            "median_step_without_loading_s": 0.032,
            "peak_bytes": 3 * 2**30,
            "workers": 12,
        },
        "training, device augments, CUDA graphs/training.json": {
            "samples_per_s": 51.0,
            "median_step_s": 0.036,
            "median_step_without_loading_s": None,  # its time was up
            "peak_bytes": 3 * 2**30,
            "workers": 12,
        },
        "memory model/memory.json": {"rows": [{"error": 0.02}, {"error": -0.14}]},
        f"tests of the network/{STATE_FILE}": {"state": "done", "seconds": 61.2, "status": 1},
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    log = "tests/network/test_gpu.py::a[x-1] PASSED [ 50%]\ntests/network/test_gpu.py::b FAILED [100%]\n"
    (tmp_path / "tests of the network" / "log.txt").write_text(log)
    with mock.patch.object(Part, "missing", lambda part: ["nnunetv2"] if part.name == "speed of training" else []):
        results = results_of(parts, tmp_path, MACHINE, with_accuracy=False)
    text = section(results)
    for expected in (
        "Left out: speed of training, not installed: nnunetv2.",
        "Left out: accuracy, --hippocampus was not given.",
        "1 passed, 0 skipped; **failed**: tests/network/test_gpu.py::b.",
        "| depthwise | 2×9×9×9×32 | 3 | 0.400 | 0.100 | 4.0 |",
        "1 of 7 different calls; the floor is their bytes at 4000 GB/s. All take 1.20 ms, their floor is 0.30 ms.",
        # Samples, steps, what loading adds, memory and workers; then against nnU-Net's.
        "| 17.0 | 120.0 | 40.0 | **200%** | 6.00 | 12 | 1.00 × | 1.00 × | 1.00 × |",
        "| 51.2 | 36.0 | 32.0 | 12% | 3.00 | 12 | 3.01 × | 1.25 × | 0.50 × |",
        "| 51.0 | 36.0 | | | 3.00 | 12 | 3.00 × | | 0.50 × |",
        "estimates of 2 plans are between -14.0% and +2.0% of the peaks.",
    ):
        assert expected in re.sub(" +", " ", text)
    page = with_section("# On a GPU\n\nText.\n", text)
    assert page.startswith("# On a GPU\n\nText.\n\n" + BEGIN) and page.endswith(END + "\n")
    assert with_section(page, text) == page
    assert with_section(page + "\nMore.\n", "new").count("More.") == 1


def test_each_call_of_a_kernel_is_recorded_and_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it launches as many kernels as the count of a step's operators takes for granted."""
    interpreter = pytest.importorskip("triton.runtime.interpreter", reason="Triton is not available for this platform")
    if torch.cuda.is_available():
        pytest.skip("counts launches of Triton's interpreter")
    from benchmarks.gpu import kernels

    torch.manual_seed(0)
    network = Factorizer(
        2, 3, features_per_stage=[16, 72], strides=[[1, 1], [2, 2]], nmf_stages=[True, True], deep_supervision=True
    )
    monkeypatch.setattr(dispatch, "kernel_precision", lambda x: torch.float32)
    monkeypatch.setattr(dispatch, "can_use_kernels", lambda x: True)
    with mock.patch.object(torch, "float16", torch.bfloat16):  # autocast of the CPU
        calls = kernels.recorded_calls(network, torch.randn(1, 2, 8, 8))
    assert {call.name for call in calls} == set(LAUNCHES)
    (depthwise,) = [call for call in calls if call.name == "depthwise" and call.shape == (1, 1, 8, 8, 16)]
    assert depthwise.num_bytes == 4 * (2 * 8 * 8 * 16 + 9 * 16 + 16)
    launches, launch = [], interpreter.GridExecutor.__call__
    monkeypatch.setattr(
        interpreter.GridExecutor, "__call__", lambda self, *a, **k: launches.append(self) or launch(self, *a, **k)
    )

    def launched(run: Callable[[], object]) -> float:
        launches.clear()
        run()
        return float(len(launches))

    monkeypatch.setattr(kernels, "machine_rates", lambda device: {"bytes_per_s": 1e9})
    (*_, before, last) = kernels.measure(calls, "cpu", launched)
    rows = last["rows"]
    (again,) = kernels.measure(calls, "cpu", launched, before["rows"])  # the last call alone
    assert again == last
    assert len(rows) == len(calls) == last["different_calls"] and all(row["floor_ms"] > 0 for row in rows)
    assert {row["operator"]: row["ms"] for row in rows} == LAUNCHES


@pytest.mark.slow
@pytest.mark.parametrize("variant", [(), ("--variant", "swin")], ids=["plans of nnU-Net", "swin"])
def test_a_training_on_synthetic_cases_is_measured(tmp_path: Path, variant: tuple[str, ...]) -> None:
    small = ("--patch", "16", "16", "16", "--shape", "24", "20", "22", "--warm-up", "1", *variant)
    run = ("--trainer", "nnUNetTrainerFactorizer", "--device", "cpu", "--output", str(tmp_path / "result.json"))
    env = {variable: str(tmp_path / variable) for variable in FOLDER_VARIABLES}
    line = [sys.executable, "-m", "benchmarks.gpu.training", "--cases", str(tmp_path), *small, *run]
    given = {**env, AUGMENTATION_VARIABLE: "device", "nnUNet_n_proc_DA": "1", "OMP_NUM_THREADS": "1"}

    def measured(steps: int) -> dict[str, Any]:
        command = [*line, "--steps", str(steps)]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **given}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        result = json.loads((tmp_path / "result.json").read_text())
        assert result["samples_per_s"] > 0 and result["median_step_without_loading_s"] > 0
        assert [len(times) for times in result["seconds"].values()] == [steps, steps]
        return result["seconds"]

    first, second = measured(2), measured(3)
    assert all(second[kind][:2] == times for kind, times in first.items())  # continued, not repeated
