"""The benchmarks run as commands; each checks its own instruments and references before it measures."""

from __future__ import annotations

import importlib
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Those that a smaller run below does not start.
OTHERS = [
    "augmentation_memory",
    "augmentation_training",
    "calibration_cases",
    "candidate_gpu_cost",
    "channel_subsets",
    "component_auc",
    "conversion",
    "corruptions",
    "data_check",
    "default_search",
    "finetune",
    "kernel_resources",
    "killed_commands",
    "memory_model",
    "postprocessing",
    "prediction",
    "quality",
    "step_operators",
    "time_budget",
    "whole_case",
]
PACKAGES = [path.parent.name for path in (ROOT / "benchmarks").glob("*/__main__.py")]

# All but SwinUNETR, which takes larger patches.
NETWORKS = [
    "PlainConvUNet",
    "ResidualEncoderUNet M",
    "Factorizer default",
    "Factorizer plain",
    "Factorizer swin",
    "Factorizer swin, 1 iteration",
    "Factorizer swin, 10 iterations",
    "Factorizer swin, 4 shifts",
    "Factorizer brats_published",
    "literal swin",
    "literal brats_published",
]


def run(benchmark: str, *options: object) -> str:
    """What a benchmark prints; it must end with status 0."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_benchmark_is_tested() -> None:
    found = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()}
    found |= {path.parent.name for path in (ROOT / "benchmarks").glob("*/__main__.py")}
    others = {"augmentation_operators", "evaluation", "explain_cost", "label_errors", "label_export", "throughput"}
    assert found == {*OTHERS, *PACKAGES} | others


@pytest.mark.parametrize("benchmark", OTHERS)
def test_a_benchmark_starts(
    benchmark: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, which has imported PyTorch and nnU-Net already."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(sys, "argv", [f"{benchmark}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{benchmark}", run_name="__main__", alter_sys=False)
    assert ended.value.code == 0
    assert f"usage: {benchmark}.py" in capsys.readouterr().out


@pytest.mark.parametrize("package", PACKAGES)
def test_the_help_of_a_package_names_its_command(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By default argparse calls it __main__.py."""
    with pytest.raises(SystemExit):
        importlib.import_module(f"benchmarks.{package}.__main__").main(["--help"])
    assert f"usage: python -m benchmarks.{package} " in capsys.readouterr().out


@pytest.mark.slow
def test_labels_are_decided_as_by_nnunet() -> None:
    printed = run("label_export", "--scale", 0.1)
    assert "| nnU-Net |" in printed
    first, second = map(int, printed.rpartition(":")[2].split(","))
    assert abs(first - second) < 1e-3 * first  # ties in half precision


@pytest.mark.slow
def test_every_network_of_the_speed_benchmark_runs(tmp_path: Path) -> None:
    small = ("--patch", 32, 32, "--channels", 1, "--classes", 2, "--rounds", 1, "--modes", "forward")
    run("speed", *small, "--networks", *NETWORKS, "--docs", tmp_path)
    (entry,) = json.loads((tmp_path / "speed.json").read_text())
    assert set(entry["modes"]["forward"]["seconds"]) == set(entry["parameters"]) == set(NETWORKS)
    assert "| literal swin |" in (tmp_path / "speed.md").read_text() and (tmp_path / "speed.png").exists()


@pytest.mark.slow
def test_what_is_not_installed_or_does_not_fit_is_left_out_with_its_reason(tmp_path: Path) -> None:
    networks = ("--networks", "PlainConvUNet", "literal swin", "SwinUNETR")
    run("speed", "--patch", 20, 32, *networks, "--rounds", 1, "--modes", "forward", "--docs", tmp_path)
    (entry,) = json.loads((tmp_path / "speed.json").read_text())
    assert "do not divide" in entry["skipped"]["literal swin"]
    assert entry["skipped"]["SwinUNETR"] in ("MONAI is not installed", "its patch sizes are multiples of 32")


@pytest.mark.slow
def test_a_drawn_case_is_explained() -> None:
    small = ("--images", "small", "--networks", "default", "--mirroring", "no", "--rounds", 1, "--threads", 1)
    printed = run("explain_cost", *small)
    (row,) = [line for line in printed.splitlines() if line.startswith("| 35 × 50 × 36")]
    prediction, one_head, complete = (cell.split(",")[-1].split()[0] for cell in row.split("|")[4:7])
    assert min(map(int, (prediction, one_head, complete))) > 100  # MB


@pytest.mark.slow
def test_a_small_case_is_scored_alike_by_all_libraries(tmp_path: Path) -> None:
    printed = run("evaluation", "--work", tmp_path, "--cases", 1, "--folder-cases", 1, "--shape", 48, 48, 40)
    assert "surface-distance agrees" in printed and "cases per s" in printed


@pytest.mark.slow
def test_both_ways_to_load_a_small_case_are_measured(tmp_path: Path) -> None:
    small = ("--patch", 24, 24, 24, "--shape", 40, 36, 44, "--cases", 1, "--rounds", 1, "--batches", 4)
    run("throughput", "--work", tmp_path, *small, "--docs", tmp_path)
    (row,) = [line for line in (tmp_path / "throughput.md").read_text().splitlines() if line.startswith("| 24×24×24")]
    assert all(float(cell) > 0 for cell in row.split("|")[2:-1])


@pytest.mark.slow
def test_operators_of_augmentation_are_counted_and_batches_give_the_values_of_samples(tmp_path: Path) -> None:
    run("augmentation_operators", "--samples", 24, "--patch", 20, 18, 22, "--rounds", 2, "--docs", tmp_path)
    lines = (tmp_path / "augmentation_operators.md").read_text().splitlines()
    cells = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines if "|" in line
    }
    for kind in ("3D", "dummy 2D", "2D"):
        mean, largest, one_by_one, at_once = map(int, cells[kind][1:])
        assert mean < largest and at_once < one_by_one
    assert all(float(cell) > 0 for kind in ("noise", "gamma", "blur") for cell in cells[kind])
