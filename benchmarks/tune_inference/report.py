"""The page of the benchmark, from what it left in its working folder."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.tune_inference.literal import GRAM, LITERAL
from factorizer_nnunet import __version__
from factorizer_nnunet.core.atomic_files import write_text_atomically

PAGE, FIGURE, NUMBERS = "tune_inference_measured.md", "tune_inference_{form}.png", "tune_inference.json"


def write_report(root: Path, docs: Path, forms: Sequence[str]) -> None:
    """Write page, plots and numbers to ``docs``.

    Args:
        root: working folder, with ``literal.json`` and a folder ``tuned_FORM`` for each form.
        docs: where they go.
        forms: keys of ``model.FORMS``.
    """
    literal = json.loads((root / "literal.json").read_text())
    parts = [_head(literal)]
    numbers = {"literal": literal}
    for form in forms:
        tuned = root / f"tuned_{form}"
        text = (tuned / "tune_inference.md").read_text().split("\n", 1)[1]
        parts.append(f"## Dice and time: {form} form\n{_one_level_down(text).replace('pareto.png', _figure(form))}")
        shutil.copyfile(tuned / "pareto.png", docs / _figure(form))
        numbers[form] = json.loads((tuned / "tune_inference.json").read_text())
        del numbers[form]["identity"]["machine"]
    write_text_atomically(docs / PAGE, "\n".join(parts))
    write_text_atomically(docs / NUMBERS, json.dumps(numbers, indent=1) + "\n")


def _figure(form: str) -> str:
    return FIGURE.format(form=form)


def _one_level_down(text: str) -> str:
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in text.split("\n"))


def _head(literal: Mapping) -> str:
    rows = []
    for patch, ways in literal["patches"].items():
        for way, words in ((LITERAL, "literal, every iteration over the matrices"), (GRAM, "this package, by Gram")):
            five, one = ways[way]["5"], ways[way]["1"]
            rows.append(f"| {patch} | {words} | {five:.3f} | {one:.3f} | {five / one:.2f} |")
    return f"""# Faster predictions: what was measured

Written by `python -m benchmarks.tune_inference DATA --root WORK`; DATA: Medical Segmentation Decathlon, Task04
(Simpson et al., arXiv 1902.09063), 100 cases. Machine: {platform.machine()}, {literal["threads"]} thread; torch
{torch.__version__}, factorizer_nnunet {__version__}.

## Iterations: 5 against 1

Seconds of a forward pass of the published form (`swin`), one channel, batch 1: medians of {literal["rounds"]} passes
that take turns.

| patch | way | 5 iterations | 1 iteration | speed-up |
|---|---|---|---|---|
{chr(10).join(rows)}
"""
