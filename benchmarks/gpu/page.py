"""The results of all parts as one JSON value, and as a section of ``docs/gpu.md``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import LOG_FILE, Part, State, ended
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.core.markdown import markdown_table

BEGIN, END = "<!-- written by benchmarks.gpu -->", "<!-- end of what benchmarks.gpu writes -->"
_TEST = re.compile(r"^(tests/\S+) .*?\b(PASSED|FAILED|ERROR|SKIPPED)\b", re.MULTILINE)
_RESULT_FILES = ("kernels.json", "speed.json", "memory.json", "training.json")
_MOST_KERNELS = 20  # rows of the page; the JSON file has all


def results_of(parts: Sequence[Part], work: Path, machine: dict[str, Any], with_accuracy: bool) -> dict[str, Any]:
    """What the parts have left in their folders, also the unfinished ones; plain JSON values."""
    results: dict[str, Any] = {"machine": machine, "left_out": {}, "parts": {}}
    for part in parts:
        if missing := part.missing():
            results["left_out"][part.name] = f"not installed: {', '.join(missing)}"
            continue
        folder, last = work / part.name, ended(work, part)
        entry: dict[str, Any] = {"state": last.state.value, "seconds": round(last.seconds, 1)}
        for name in _RESULT_FILES:
            content = read_complete_json(folder / name, list if name == "speed.json" else dict)
            if content is not None:
                entry[name.removesuffix(".json")] = content
        if "pytest" in part.needs and last.state is not State.WAITING:
            entry["tests"] = _tests((folder / LOG_FILE).read_text(encoding="utf-8", errors="replace"))
        if (folder / "real_data.md").exists():
            table = (folder / "real_data.md").read_text(encoding="utf-8").splitlines()
            entry["dice"] = [line for line in table if line.startswith("|")]
        results["parts"][part.name] = entry
    if not with_accuracy:
        results["left_out"]["accuracy"] = "--hippocampus was not given"
    return results


def _tests(log: str) -> dict[str, Any]:
    """How many tests passed, and the names of those that did not."""
    found = dict(_TEST.findall(log))
    counts = Counter(found.values())
    failed = [name for name, outcome in found.items() if outcome in ("FAILED", "ERROR")]
    return {"passed": counts["PASSED"], "skipped": counts["SKIPPED"], "failed": failed}


def section(results: dict[str, Any]) -> str:
    """Markdown, between the marks by which the section is found again."""
    machine = results["machine"]
    lines = [
        BEGIN,
        "## Measured by `python -m benchmarks.gpu`",
        "",
        f"{machine['device']}, {machine['cores']} cores; torch {machine['torch']}, CUDA {machine['cuda']}; revision "
        f"{machine['revision'][:12]}. Times in ms; all numbers are in [gpu.json](measured/gpu.json).",
        "",
        markdown_table([["part", "state", "s"], *([*_cells(*part)] for part in results["parts"].items())]),
    ]
    lines += ["", *(f"* Left out: {name}, {reason}." for name, reason in results["left_out"].items())]
    for name, entry in results["parts"].items():
        if "tests" in entry:
            tests = entry["tests"]
            failed = f"; **failed**: {', '.join(tests['failed'])}" if tests["failed"] else ""
            lines.append(f"* {name.capitalize()}: {tests['passed']} passed, {tests['skipped']} skipped{failed}.")
    parts = results["parts"].values()
    trainings = {name: entry["training"] for name, entry in results["parts"].items() if "training" in entry}
    lines += _trainings(trainings)
    for entry in parts:
        if "speed" in entry:
            lines += _speed(entry["speed"])
        if "kernels" in entry:
            lines += _kernels(entry["kernels"])
        if "memory" in entry:
            errors = [row["error"] for row in entry["memory"]["rows"]]
            between = f"{min(errors):+.1%} and {max(errors):+.1%}"
            lines += ["", f"The memory model's estimates of {len(errors)} plans are between {between} of the peaks."]
        if "dice" in entry:
            lines += ["", "Hippocampus, fold 0, a short training:", "", *entry["dice"]]
    return "\n".join([*lines, END])


def with_section(page: str, section: str) -> str:
    """The page with this section in place of the one before, or at its end."""
    before, begin, rest = page.partition(BEGIN)
    after = rest.partition(END)[2] if begin else "\n"
    return f"{before if begin else page.rstrip() + chr(10) * 2}{section}{after}"


def _cells(name: str, entry: dict[str, Any]) -> tuple[str, str, str]:
    return name, entry["state"], f"{entry['seconds']:.0f}"


def _trainings(trainings: dict[str, dict[str, Any]]) -> list[str]:
    if not trainings:
        return []
    rows = [["", "samples a second", "step with loading", "step without", "memory, GiB", "workers"]]
    for name, training in trainings.items():
        peak = training["peak_bytes"]
        steps = (training["median_step_s"], training["median_step_without_loading_s"])
        rows.append(
            [
                name.removeprefix("training, "),
                f"{training['samples_per_s']:.1f}",
                *(f"{1000 * seconds:.1f}" for seconds in steps),
                "" if peak is None else f"{peak / 2**30:.2f}",
                str(training["workers"]),
            ]
        )
    return ["", "Training from synthetic cases of 140×171×137 voxels:", "", markdown_table(rows, right=True)]


def _speed(entries: list[dict[str, Any]]) -> list[str]:
    rows = [["", "pass", "ms", "faster than PlainConvUNet", "memory, GiB"]]
    for entry in entries:
        for mode, result in entry["modes"].items():
            speedup = result["speedup"].get("PlainConvUNet", {})
            for name, seconds in result["seconds"].items():
                faster = f"{speedup[name]:.2f} ×" if name in speedup else ""
                rows.append([name, mode, f"{1000 * seconds:.1f}", faster, f"{result['peak_bytes'][name] / 2**30:.2f}"])
    return ["", "The network alone, patch 128³, batch 2:", "", markdown_table(rows, right=True)]


def _kernels(measured: dict[str, Any]) -> list[str]:
    rows = [["operator", "size", "calls a step", "ms a call", "floor", "times the floor"]]
    for row in measured["rows"][:_MOST_KERNELS]:
        times = (row["ms"], row["floor_ms"])
        size = "×".join(map(str, row["shape"]))
        rows.append(
            [row["operator"], size, str(row["calls"]), *(f"{ms:.3f}" for ms in times), f"{times[0] / times[1]:.1f}"]
        )
    total, floor = (sum(row["calls"] * row[key] for row in measured["rows"]) for key in ("ms", "floor_ms"))
    return [
        "",
        f"Kernels of one training step; the floor is their bytes at {measured['bytes_per_s'] / 1e9:.0f} GB/s. All "
        f"take {total:.2f} ms, their floor is {floor:.2f} ms.",
        "",
        markdown_table(rows, right=True),
    ]
