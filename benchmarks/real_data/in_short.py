"""The study's answers in four tables: Dice after short and long trainings, robustness, and what the NMF earns."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.real_data.arms import ARMS, BASELINE, MAIN, RECIPE
from benchmarks.real_data.data import setup_title
from benchmarks.real_data.pieces import EQUAL, ITERATIONS, LONG, SHORT, TIME
from benchmarks.real_data.summary import WORST, Comparison, comparison, robustness_of_models, shown
from factorizer_nnunet.core.markdown import markdown_table

_OVERVIEW = (
    "One training per network and fold, on the folds that all three networks have finished. Bold: ahead of both "
    "U-Nets, with the intervals of the differences above 0 and p < 0.05 (Wilcoxon, not corrected)."
)
_LONG = (
    "Trainings ten times as long, in equal training time, which is planned from iterations timed beforehand. *CPU min* "
    "is what the trainings of a row took in the end, in the order of its columns. Bold: ahead of the U-Nets of the "
    "row, as above."
)
_ROBUSTNESS = (
    "On corrupted copies of the validation images; the default was trained for as long as the U-Net. The 5th "
    "percentile is that of the images; the interval of its difference is a bootstrap over patients, too. Bold: mean "
    "ahead of this U-Net's, as above."
)
_NMF = (
    "What the NMF earns: differences of mean Dice between forms of the default, on the folds that both have finished, "
    "short budget; in brackets the number of patients."
)
TESTED = ((BASELINE, ITERATIONS), ("default", TIME))  # on corrupted images
_UNETS = (BASELINE, RECIPE)
_OF_ROWS = ("mean Dice", "iterations", "folds", "patients")
_NMF_PAIRS = (("default", "no_nmf"), ("everywhere", "no_nmf"), ("everywhere", "default"))


def in_short(content: Mapping[str, Any]) -> list[str]:
    """The tables that have rows, as lines of Markdown with a heading."""
    parts = (
        (_OVERVIEW, overview(content)),
        (_LONG, long_rows(content)),
        (_ROBUSTNESS, robustness_rows(content)),
        (_NMF, nmf_rows(content)),
    )
    lines = ["## In short", ""]
    for text, rows in parts:
        if len(rows) > 1:
            lines += [text, "", markdown_table(rows, right=True), ""]
    return lines if len(lines) > 2 else []


def overview(content: Mapping[str, Any]) -> list[list[str]]:
    """A row for each setup whose short budget has both U-Nets and the default, after the header."""
    unets = [ARMS[arm].title for arm in _UNETS]
    rows = [[*_OF_ROWS, *unets, *(f"Factorizer, {title}" for title in EQUAL.values())]]
    for setup in content["setups"]:
        found = {equal: comparison(content, setup, SHORT, equal, arms=MAIN) for equal in EQUAL}
        if any(one is None or one.results.keys() != set(MAIN) for one in found.values()):
            continue
        folds = set.intersection(*(set(one.folds) for one in found.values()))
        if not folds:
            continue
        found = {equal: one.on(folds) for equal, one in found.items()}
        first = found[ITERATIONS]
        cells = [f"{first.mean(arm):.3f}" for arm in _UNETS]
        for one in found.values():
            is_ahead = all(one.is_ahead("default", arm) for arm in _UNETS)
            cells.append(_bold_if(is_ahead, one.mean("default")))
        rows.append([*_of_row(setup, first), *cells])
    return rows


def long_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """A row for each setup whose long budget has nnU-Net's U-Net and the default in equal time, after the header."""
    unets = [ARMS[arm].title for arm in _UNETS]
    rows = [[*_OF_ROWS, *unets, "Factorizer", f"Factorizer minus {unets[0]}", "CPU min"]]
    for setup in content["setups"]:
        found = comparison(content, setup, LONG, TIME, arms=MAIN)
        if found is None or not {BASELINE, "default"} <= found.results.keys():
            continue
        trained = [arm for arm in _UNETS if arm in found.results]
        is_ahead = all(found.is_ahead("default", arm) for arm in trained)
        minutes = [f"{found.minutes(arm):.0f}" for arm in (*trained, "default")]
        cells = [f"{found.mean(arm):.3f}" if arm in trained else "–" for arm in _UNETS]
        cells += [_bold_if(is_ahead, found.mean("default")), shown(found.difference("default", BASELINE))]
        rows.append([*_of_row(setup, found), *cells, ", ".join(minutes)])
    return rows


def robustness_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """A row for each setup whose U-Net and default have predicted the corrupted images, after the header."""
    unet, minus = ARMS[BASELINE].title, "Factorizer minus U-Net"
    worst = f"{WORST}th percentile: {unet}"
    rows = [["corrupted images", "folds", "patients", f"mean: {unet}", "Factorizer", minus, worst, "Factorizer", minus]]
    for setup in content["setups"]:
        found = robustness_of_models(content, setup, TESTED)
        if len(found) < len(TESTED):
            continue
        base, own = (found[model] for model in TESTED)
        cells = [f"{base.mean:.3f}", _bold_if(own.is_ahead(base), own.mean), shown(own.difference(base))]
        cells += [f"{base.worst:.3f}", f"{own.worst:.3f}", shown(own.difference_of_worst(base))]
        rows.append([setup_title(setup), folds_text(own.folds), str(len(own.patients)), *cells])
    return rows


def nmf_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """A row for each setup and for equal iterations and time that has a pair of the forms, after the header."""
    rows = [["", *(f"{_form(one)} minus {_form(other)}" for one, other in _NMF_PAIRS)]]
    for setup, equal in itertools.product(content["setups"], EQUAL):
        cells = [nmf_gain(content, setup, equal, *pair) for pair in _NMF_PAIRS]
        if any(cells):
            rows.append([f"{setup_title(setup)}, {EQUAL[equal]}", *cells])
    return rows


def nmf_gain(content: Mapping[str, Any], setup: str, equal: str, one: str, other: str) -> str:
    """The difference of two forms with the number of patients; empty if they share no fold."""
    found = comparison(content, setup, SHORT, equal, arms=(one, other))
    return "" if found is None else f"{shown(found.difference(one, other))} ({found.num_patients})"


def _of_row(setup: str, found: Comparison) -> list[str]:
    """The first cells of the tables of Dice, below ``_OF_ROWS``; iterations are those of nnU-Net's U-Net."""
    counts = (str(found.iterations(BASELINE)), folds_text(found.folds), str(found.num_patients))
    return [setup_title(setup), *counts]


def _bold_if(is_ahead: bool, value: float) -> str:
    return f"**{value:.3f}**" if is_ahead else f"{value:.3f}"


def folds_text(folds: Sequence[int]) -> str:
    """Folds as text."""
    return ", ".join(map(str, folds))


def _form(arm: str) -> str:
    return ARMS[arm].title.removeprefix("Factorizer, ")
