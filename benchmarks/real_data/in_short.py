"""The study's answers in three tables: Dice, robustness, and what the NMF earns."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.real_data.arms import ARMS, BASELINE, MAIN, RECIPE
from benchmarks.real_data.data import setup_title
from benchmarks.real_data.pieces import EQUAL, ITERATIONS, LONG, SHORT, TIME
from benchmarks.real_data.summary import WORST, comparison, robust, shown
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.report.statistics import cases_needed

_OVERVIEW = (
    "One training each on every fold that the three networks have finished. Bold: ahead of both U-Nets, with the "
    "intervals of the differences clear of 0, and enough patients for a p-value below 0.05."
)
_ROBUSTNESS = (
    "On corrupted copies of fold 0's validation images, the default of equal training time. The 5th percentile is that "
    "of the images; the interval of its difference is a bootstrap over patients, too."
)
_NMF = (
    "What the NMF earns: differences of mean Dice between forms of the default, on the folds that both have finished, "
    "short budget."
)
_NMF_PAIRS = (("default", "no_nmf"), ("everywhere", "no_nmf"), ("everywhere", "default"))


def in_short(content: Mapping[str, Any]) -> list[str]:
    """The tables that have rows, as lines of Markdown with a heading."""
    parts = ((_OVERVIEW, overview(content)), (_ROBUSTNESS, robustness_rows(content)), (_NMF, nmf_rows(content)))
    lines = ["## In short", ""]
    for text, rows in parts:
        if len(rows) > 1:
            lines += [text, "", markdown_table(rows, right=True), ""]
    return lines if len(lines) > 2 else []


def overview(content: Mapping[str, Any]) -> list[list[str]]:
    """A row for each setup and budget that has both U-Nets and the default, after the header."""
    unets = [ARMS[arm].title for arm in (BASELINE, RECIPE)]
    rows = [
        ["mean Dice", "iterations", "folds", "patients", *unets, *(f"Factorizer, {title}" for title in EQUAL.values())]
    ]
    for setup, budget in itertools.product(content["setups"], (SHORT, LONG)):
        found = {equal: comparison(content, setup, budget, equal, arms=MAIN) for equal in EQUAL}
        if any(one is None or one.results.keys() != set(MAIN) for one in found.values()):
            continue
        folds = set.intersection(*(set(one.folds) for one in found.values()))
        if not folds:
            continue
        found = {equal: one.on(folds) for equal, one in found.items()}
        first = found[ITERATIONS]
        cells = [f"{first.mean(arm):.3f}" for arm in (BASELINE, RECIPE)]
        for one in found.values():
            clear = all(one.difference("default", arm).low > 0 for arm in (BASELINE, RECIPE))
            clear &= one.num_patients >= cases_needed(1)
            cells.append(f"**{one.mean('default'):.3f}**" if clear else f"{one.mean('default'):.3f}")
        iterations = first.results[BASELINE][first.folds[0]]["iterations"]
        rows.append([setup_title(setup), str(iterations), numbers(first.folds), str(first.num_patients), *cells])
    return rows


def robustness_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """A row for each setup whose U-Net and default have predicted the corrupted images, after the header."""
    unet, minus = ARMS[BASELINE].title, "Factorizer minus U-Net"
    worst = f"{WORST}th percentile: {unet}"
    rows = [["corrupted images", "patients", f"mean: {unet}", "Factorizer", minus, worst, "Factorizer", minus]]
    for setup in content["setups"]:
        unet_found, found = (robust(content, setup, *one) for one in ((BASELINE, ITERATIONS), ("default", TIME)))
        if unet_found is None or found is None:
            continue
        base, own = unet_found.corrupted, found.corrupted
        mean = [f"{base.mean:.3f}", f"{own.mean:.3f}", shown(own.difference(base))]
        low = [f"{base.worst:.3f}", f"{own.worst:.3f}", shown(own.difference_of_worst(base))]
        rows.append([setup_title(setup), str(len(own.patients)), *mean, *low])
    return rows


def nmf_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """A row for each setup and for equal iterations and time that has a pair of the forms, after the header."""
    rows = [["", "patients", *(f"{_form(one)} minus {_form(other)}" for one, other in _NMF_PAIRS)]]
    for setup, equal in itertools.product(content["setups"], EQUAL):
        found = [comparison(content, setup, SHORT, equal, arms=pair) for pair in _NMF_PAIRS]
        known = [one for one in found if one is not None]
        if known:
            cells = [
                "" if one is None else shown(one.difference(*pair)) for one, pair in zip(found, _NMF_PAIRS, strict=True)
            ]
            rows.append([f"{setup_title(setup)}, {EQUAL[equal]}", str(known[0].num_patients), *cells])
    return rows


def numbers(folds: Sequence[int]) -> str:
    """Folds as text."""
    return ", ".join(map(str, folds))


def _form(arm: str) -> str:
    return ARMS[arm].title.removeprefix("Factorizer, ")
