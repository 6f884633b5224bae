"""The page and figure of the speed benchmark, from its JSON file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.speed.measure import FORWARD, MODES
from benchmarks.speed.networks import DEFAULT, LITERAL, NETWORKS, PLAIN, PUBLISHED, UNET

_COLOURS = {UNET: "#555555", DEFAULT: "#00441b", PLAIN: "#1b7837", PUBLISHED: "#5aae61", LITERAL: "#b2182b"}


def write_report(entries: Sequence[dict], docs: Path) -> None:
    """Write ``speed.md`` and ``speed.png`` into ``docs``."""
    lines = [
        "# Speed and memory",
        "",
        "Written by `python -m benchmarks.speed` (see `--help`). The networks of a table ran in one process, taking",
        "turns; *faster* is the median over turns of the reference's time over the network's. The U-Nets are as",
        "nnU-Net plans them for an isotropic patch; *plain* is the default of earlier versions, *literal* the",
        "published algorithm as its formulas read (`benchmarks/speed/literal.py`). Memory: most bytes allocated at a",
        "time during the pass, without parameters and input. The floor is the time for the multiply-adds at the rate",
        "of a large matrix product plus that for reading and writing the input and output of every layer once at the",
        "bandwidth of a large copy, both measured in the same run.",
        "",
    ]
    for entry in sorted(entries, key=_order):
        lines += _section(entry)
    lines += ["![time and memory against patch volume](speed.png)", ""]
    (docs / "speed.md").write_text("\n".join(lines))
    _figure(entries, docs / "speed.png")


def _order(entry: dict) -> tuple:
    patch = entry["patch_size"]
    return entry["device"], entry["dtype"], entry["compiled"], len(patch), math.prod(patch), entry["batch_size"]


def _section(entry: dict) -> list[str]:
    patch = "×".join(str(v) for v in entry["patch_size"])
    versions = ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
    how = f"{entry['dtype']}, {'compiled' if entry['compiled'] else 'eager'}"
    lines = [f"## {patch}, batch {entry['batch_size']}, {how}, {entry['device']}", ""]
    clock = "" if entry["clock"] == "wall" else f", {entry['clock']} time of all threads"
    lines += [f"{entry['rounds']} turns{clock}; machine: {entry['machine']}; {versions}.", ""]
    header = ["network", "parameters", "multiply-adds"]
    modes = [mode for mode in MODES if mode in entry["modes"]]
    for mode in modes:
        header += [f"{mode}: s", f"faster than {UNET}", "than literal", "peak memory", f"of {UNET}"]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for name in [name for name in NETWORKS if name in entry["parameters"]]:
        cells = [name, f"{entry['parameters'][name] / 1e6:.1f} M", f"{entry['multiply_adds'][name] / 1e9:.1f} G"]
        for result in (entry["modes"][mode] for mode in modes):
            own, unet = result["peak_bytes"].get(name), result["peak_bytes"].get(UNET)
            cells += [
                _number(result["seconds"].get(name), "{:.3g}"),
                _number(result["speedup"].get(UNET, {}).get(name), "{:.2f}×"),
                _number(result["speedup"].get(LITERAL, {}).get(name), "{:.2f}×"),
                _number(own and own / 2**30, "{:.2f} GiB"),
                _number(own and unet and own / unet, "{:.2f}"),
            ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"{name}: {reason}." for name, reason in entry["skipped"].items())]
    if entry["dtype"] == "float32" and not entry["compiled"]:  # what is counted, operation by operation
        for name, layers in entry["traffic"].items():
            lines += ["", *_traffic(entry, name, layers)]
    return [*lines, ""]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _traffic(entry: dict, name: str, layers: dict[str, dict[str, int]]) -> list[str]:
    """Bytes of a forward pass by kind of layer, and the floor."""
    rates = entry["rates"]
    arithmetic = entry["multiply_adds"][name] / rates["multiply_adds_per_s"]
    needed = sum(layer["needed"] for layer in layers.values()) / rates["bytes_per_s"]
    measured = entry["modes"].get(FORWARD, {}).get("seconds", {}).get(name)
    lines = [
        f"{name}, forward: {arithmetic:.3f} s for the multiply-adds at {rates['multiply_adds_per_s'] / 1e9:.0f} G/s "
        f"and {needed:.3f} s for the bytes at {rates['bytes_per_s'] / 1e9:.1f} GB/s",
    ]
    if measured:
        lines[0] += f"; measured {measured / (arithmetic + needed):.1f} times their sum"
    lines[0] += "."
    lines += ["", "| layers | GB moved from and to memory | GB that must move | ratio |", "|---|---|---|---|"]
    for kind, layer in sorted(layers.items(), key=lambda item: -item[1]["moved"]):
        moved, least = layer["moved"] / 1e9, layer["needed"] / 1e9
        lines.append(f"| {kind} | {moved:.3f} | {least:.3f} | {_number(moved / least if least else None, '{:.1f}')} |")
    return lines


def _figure(entries: Sequence[dict], target: Path) -> None:
    """Time and memory against the voxels of a batch, one panel for each mode and quantity; CPU, float32, eager."""
    chosen = [
        e
        for e in entries
        if e["device"].startswith("CPU") and (e["dtype"], e["compiled"], e["clock"]) == ("float32", False, "wall")
        if len(e["patch_size"]) == 3
    ]
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for column, mode in enumerate(MODES):
        for row, (key, label, scale) in enumerate((("seconds", "s", 1), ("peak_bytes", "peak memory / GiB", 2**30))):
            axis = axes[row][column]
            for name, colour in _COLOURS.items():
                points = sorted(
                    (math.prod(e["patch_size"]) * e["batch_size"], e["modes"][mode][key][name] / scale)
                    for e in chosen
                    if mode in e["modes"] and name in e["modes"][mode][key]
                )
                if points:
                    axis.loglog(*zip(*points, strict=True), "o-", color=colour, label=name, lw=1.2, ms=4)
            axis.set(title=mode, xlabel="voxels of the batch", ylabel=label)
            axis.grid(alpha=0.3, which="both")
            if axis.lines:
                axis.legend(fontsize=8)
    figure.savefig(target, dpi=110)
    plt.close(figure)
