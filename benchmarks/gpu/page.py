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
STOCK_TRAINING = "training, nnU-Net"  # what the others are compared with
LOADING_BOUND = 0.15  # of the step without loading, that a step with loading may take longer
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
    lines += _speed([speed for entry in parts for speed in entry.get("speed", [])])
    for name, entry in results["parts"].items():
        if "kernels" in entry:
            lines += _kernels(entry["kernels"])
        if "memory" in entry:
            errors = [row["error"] for row in entry["memory"]["rows"]]
            between = f"{min(errors):+.1%} and {max(errors):+.1%}"
            lines += ["", f"The memory model's estimates of {len(errors)} plans are between {between} of the peaks."]
        if "dice" in entry:
            where = ", augmented on the device" if "device" in name else ""
            lines += ["", f"Hippocampus, fold 0, a short training{where}:", "", *entry["dice"]]
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
    stock = trainings.get(STOCK_TRAINING, {})
    rows = [["", "samples a second", "step with loading", "step without", "loading adds", "memory, GiB", "workers"]]
    rows[0] += ["samples", "step without", "memory"]
    for name, training in trainings.items():
        peak, loaded = training["peak_bytes"], training["median_step_s"]
        alone = training["median_step_without_loading_s"]
        added = "" if alone is None else f"{loaded / alone - 1:.0%}"
        if alone is not None and loaded / alone - 1 > LOADING_BOUND:
            added = f"**{added}**"
        rows.append(
            [
                name.removeprefix("training, "),
                f"{training['samples_per_s']:.1f}",
                f"{1000 * loaded:.1f}",
                "" if alone is None else f"{1000 * alone:.1f}",
                added,
                "" if peak is None else f"{peak / 2**30:.2f}",
                str(training["workers"]),
                _ratio(training["samples_per_s"], stock.get("samples_per_s")),
                _ratio(stock.get("median_step_without_loading_s"), alone),
                _ratio(peak, stock.get("peak_bytes")),
            ]
        )
    return [
        "",
        "Training from synthetic cases of 140×171×137 voxels. The last three columns are against nnU-Net's trainer: "
        "how many times as many samples, how many times faster a step, and the share of its memory. **Bold** is where "
        f"loading adds more than {LOADING_BOUND:.0%} to the step without it:",
        "",
        markdown_table(rows, right=True),
    ]


def _ratio(value: float | None, other: float | None) -> str:
    return f"{value / other:.2f} ×" if value and other else ""


def _speed(entries: list[dict[str, Any]]) -> list[str]:
    if not entries:
        return []
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
        f"Kernels of one training step, {len(measured['rows'])} of {measured['different_calls']} different calls; the "
        f"floor is their bytes at {measured['bytes_per_s'] / 1e9:.0f} GB/s. All take {total:.2f} ms, their floor is "
        f"{floor:.2f} ms.",
        "",
        markdown_table(rows, right=True),
    ]
