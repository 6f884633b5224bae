"""The page of the roofline benchmark."""

from __future__ import annotations

import itertools


def page(result: dict) -> str:
    """``docs/roofline.md`` from the measured values."""
    rates = result["rates"]
    bandwidth, rate = rates["bytes_per_s"], rates["multiply_adds_per_s"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    patch = f"{result['side']}×{result['side']}×{result['side']}"
    lines = [
        "# Where the time goes",
        "",
        f"Written by `python -m benchmarks.roofline`: {patch} voxels, batch {result['batch']}, float32, eager,",
        f"{result['threads']} threads, medians of {result['rounds']} turns. Machine: {result['machine']}; {versions}.",
        f"In the same run a large copy moved {bandwidth / 1e9:.1f} GB/s and a large matrix product did",
        f"{rate / 1e9:.0f} G multiply-adds/s.",
        "",
        "*Floor*: the multiply-adds at that rate plus the input read and the output written once at that bandwidth.",
        "*GB moved* counts the operands of every operation that lie in memory, not those small enough for the cache.",
        "",
        "## What each change predicted and won",
        "",
        "One block at the highest resolution (32 channels), forward; the steps of a part give the same numbers.",
        "*Predicted*: by how much the change lowers (bytes moved at the bandwidth) + (multiply-adds at the rate).",
        "",
        "| part | step | GB moved | must move | G multiply-adds | ms | of the floor | predicted win / ms | won / ms "
        "| forward + backward: ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    previous = None
    for step in result["steps"]:
        lines.append(_step_row(step, previous if previous and previous["part"] == step["part"] else None, rates))
        previous = step
    lines += ["", "## Layer by layer", "", *_layer_table(result["layers"], rates), ""]
    return "\n".join(lines)


def _floor(values: dict, rates: dict) -> float:
    """Seconds."""
    return values["needed_bytes"] / rates["bytes_per_s"] + values["multiply_adds"] / rates["multiply_adds_per_s"]


def _predicted(step: dict, rates: dict) -> float:
    return step["moved_bytes"] / rates["bytes_per_s"] + step["multiply_adds"] / rates["multiply_adds_per_s"]


def _step_row(step: dict, before: dict | None, rates: dict) -> str:
    wins = ["", ""]
    if before is not None:
        wins = [
            f"{1e3 * (_predicted(before, rates) - _predicted(step, rates)):.0f}",
            f"{1e3 * (before['forward_s'] - step['forward_s']):.0f}",
        ]
    cells = [
        step["part"],
        step["change"],
        f"{step['moved_bytes'] / 1e9:.2f}",
        f"{step['needed_bytes'] / 1e9:.2f}",
        f"{step['multiply_adds'] / 1e9:.1f}",
        f"{1e3 * step['forward_s']:.0f}",
        f"{step['forward_s'] / _floor(step, rates):.1f}×",
        *wins,
        f"{1e3 * step['training_s']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _layer_table(layers: dict[str, dict[str, dict]], rates: dict) -> list[str]:
    before, now = layers["as published"], layers["now"]
    lines = [
        "The published form, forward; the floor is that of what runs now.",
        "",
        "| layer | must move / GB | G multiply-adds | floor / ms | as published / ms | now / ms | of the floor "
        "| times as fast |",
        "|---|---|---|---|---|---|---|---|",
    ]
    sums = [
        {key: sum(layer[key] for layer in part.values()) for key in ("seconds", "needed_bytes", "multiply_adds")}
        for part in (before, now)
    ]
    for name, (old, new) in itertools.chain(
        ((name, (before[name], now[name])) for name in now), [("**all**", tuple(sums))]
    ):
        floor = _floor(new, rates)
        cells = [
            name,
            f"{new['needed_bytes'] / 1e9:.3f}",
            f"{new['multiply_adds'] / 1e9:.2f}",
            f"{1e3 * floor:.1f}",
            f"{1e3 * old['seconds']:.0f}",
            f"{1e3 * new['seconds']:.0f}",
            f"{new['seconds'] / floor:.1f}×",
            f"{old['seconds'] / new['seconds']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
