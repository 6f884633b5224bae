"""The page of ``kill_run``."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any


def kill_page(result: Mapping[str, Any]) -> str:
    """Markdown of what ``kill_run`` measured and found."""
    came = [kill for kill in result["kills"] if kill["came"]]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "nnunetv2", "factorizer_nnunet"))
    verdict = "as an undisturbed run ends" if not result["problems"] and result["status"] == 0 else "NOT as it should"
    chosen = " with ".join(f"`{name}`" for name in result["chosen"])
    lines = [
        "# A run killed again and again",
        "",
        "Written by `python -m benchmarks.kill_run --root WORK`: `factorizer-nnunet run` over 6 small synthetic cases,",
        f"2d and 3d_fullres by five folds, {result['epochs']} epochs of {result['iterations']} iterations "
        "each, ensemble,",
        f"2 test images, on the CPU. It was killed with SIGKILL {len(came)} times (seed {result['seed']}), each time",
        "followed by the same command.",
        f"Machine: {platform.machine()}, {os.cpu_count()} cores; {versions}.",
        "",
        f"**It ended {verdict}**, with status {result['status']}, after {result['minutes']} minutes, of which the last",
        f"run took {result['minutes_of_the_last_run']}:",
        "",
        f"* folds trained for all {result['epochs']} epochs, each logged once, and validated: {result['folds']} of 10",
        f"* cases validated, by configuration: {result['validated']} of 12",
        f"* test cases predicted: {result['predicted']} of 2, by {chosen}",
        *(f"* PROBLEM: {problem}" for problem in result["problems"]),
        "",
        "Where only the runner was killed, its commands went on alone; the next run ended them before it began.",
        "",
        "| kill | moment | after | killed | half-written checkpoints left |",
        "|---|---|---|---|---|",
    ]
    for number, kill in enumerate(result["kills"], 1):
        killed = "came too late" if not kill["came"] else f"{kill['processes']} processes"
        killed = "the runner alone" if kill["came"] and kill["runner_alone"] else killed
        left = len(kill["half_written"]) or ""
        lines.append(f"| {number} | {kill['moment']} | {kill['seconds']:.0f} s | {killed} | {left} |")
    return "\n".join(lines) + "\n"
