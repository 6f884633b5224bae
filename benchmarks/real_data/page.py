"""The page of the study, from its results alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corruptions import STRENGTHS
from benchmarks.real_data.arms import ARMS, BASELINE, MAIN, RECIPE
from benchmarks.real_data.data import DATA_SETS
from benchmarks.real_data.figure import draw
from benchmarks.real_data.in_short import TESTED, folds_text, in_short
from benchmarks.real_data.pieces import EQUAL, KINDS, LONG, SHORT, times_of_trainings
from benchmarks.real_data.results import Results
from benchmarks.real_data.summary import (
    POWER,
    SURFACE,
    WORST,
    Comparison,
    Model,
    Robustness,
    comparison,
    robustness_of_models,
    shown,
)
from factorizer_nnunet.core.atomic_files import atomic_file, write_text_atomically
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.report.statistics import RESAMPLES, cases_needed

_WORST = f"{WORST}th percentile of cases"
# Forms of Factorizer whose difference is said below a table.
_PAIRS = (
    *(("default", "no_nmf"), ("everywhere", "no_nmf"), ("everywhere", "default"), ("default", "plain")),
    *(("plain", "plain_no_nmf"), ("plain_everywhere", "plain_no_nmf"), ("plain_everywhere", "plain")),
)
_INTRODUCTION = """\
Written by `python -m benchmarks.real_data DATA… --root WORK` from [{results}]({results}), which grows by a line for
each finished training; the study can be continued at any time, on any machine that has the data in nnU-Net's raw
layout.

All arms of a table share nnU-Net's plans (patch, batch, stages, kernels, strides), preprocessed data, folds, loss,
augmentation and sampling, and are trained by `nnUNetv2_train` with the same seed. *nnU-Net's recipe* is SGD from 1e-2
with momentum 0.99, made for 250,000 iterations, *ours* AdamW from 3e-3 with warm-up and clipped gradients, made for
Factorizer; both decay polynomially to 0 over the budget. nnU-Net's U-Net and ResEnc M have nnU-Net's recipe unless the
table says otherwise, Factorizer has ours. ResEnc M has the U-Net's stages with nnU-Net's residual blocks; *as
published* has widths and windows of its own. *Plain* is the default of earlier versions: one depthwise convolution in
each block, and an NMF whose output is added.

*Equal training time* means as many iterations as fit the CPU time of the U-Net's, with loading and augmentation, which
one process does on one core. *CPU s* is what an iteration took when arms took turns in one process. Arms that were
added later took turns with the U-Net, too, and their costs are scaled to its first one. Costs within 10 % of the
U-Net's count as equal. The figure shows iterations times *CPU s*. *CPU min* is what the steps of the training took in
the end{took}: what else ran on the machine differed.

Scores are those of the validation cases of the folds that a table names: complete images, without mirroring.
Differences are paired by patient: the mean over the patients' mean Dice, with a 95 % bootstrap interval over patients
(BCa, {resamples} resamples). It does not include the variation between training runs. Where the names of cases do not
say the patient, each case counts as one."""
_OF_THIS_PROJECT = """\
The data are public, but not part of this project: the command takes them from folders named as below (`--data DIR`),
or any data set of your own.

Fold 1 is left out, since [candidates for the default](default_search.md) were compared on it. Fold 0 is not untouched
either: its results were known when the default was [chosen](../default_form.md#a-search-on-real-data). Over seeds, the
mean Dice of a training varies by some hundredths ([measured there](default_search.md#all-data-sets)). Results with a
revision before cfc34b5 were written under other names: *plain* as `default`, *default* as `gated_conv`.

Two things about corrupted images were changed after their first results were known: the background of BraTS (see
there), and missing slices, which were scored, too, although nothing can be segmented on them. With them, the 5th
percentiles of nnU-Net's U-Net and the default were 0.133 and 0.142 on BraTS (folds 0 and 2), 0.038 and 0.081 on the
hippocampus, 0.333 and 0.317 on the left atrium (fold 0; in these files at revision 43b9d09)."""


def write_page(results: Results) -> None:
    """Write the page and its figure next to the results."""
    content = results.read()
    picture = results.file.with_suffix(".png")
    with atomic_file(picture) as draft:
        draw(content, draft)
    write_text_atomically(results.page, page(content, picture.name))


def page(content: Mapping[str, Any], picture: str) -> str:
    """The page as Markdown."""
    introduction = _INTRODUCTION.format(
        results=Path(picture).with_suffix(".json"), took=_took(content), resamples=RESAMPLES
    )
    lines = ["# Networks and recipes on real data", "", introduction, ""]
    if any(setup.partition("/")[0] in DATA_SETS for setup in content["setups"]):
        lines += [_OF_THIS_PROJECT, ""]
    lines += in_short(content)
    lines += [f"![Dice against training time, fold 0]({picture})", ""]
    for setup in content["setups"]:
        lines += _setup(content, setup)
    lines += [
        "Not known: trainings of nnU-Net's length (250,000 iterations), images at 1 mm, other sites than those of the "
        "data sets, and for most numbers other seeds.",
        "",
    ]
    return "\n".join(lines)


def _setup(content: Mapping[str, Any], setup: str) -> list[str]:
    known = content["setups"][setup]
    data, _, configuration = setup.partition("/")
    size = " × ".join(map(str, known["patch_size"]))
    source, note = (known[key] for key in ("source", "note"))
    if data in DATA_SETS:  # today's wording, which may be newer than the results
        source, note = DATA_SETS[data].source, DATA_SETS[data].note
    text = f"{source}. Patch {size}, batch {known['batch_size']}. {note}".rstrip()
    lines = [f"## {data}, {configuration}", "", text, ""]
    if known["seconds"]:
        base = known["seconds"][BASELINE]
        costs = [
            f"{own.title} {known['seconds'][arm] / base:.2f}" for arm, own in ARMS.items() if arm in known["seconds"]
        ]
        lines += [f"Time of an iteration relative to {ARMS[BASELINE].title}: {', '.join(costs)}.", ""]
    for budget in (SHORT, LONG):
        for equal, title in EQUAL.items():
            found = [comparison(content, setup, budget, equal, arms=arms) for arms in (MAIN, tuple(ARMS))]
            by_folds = {one.folds: one for one in found if one is not None}  # of all arms where these have the folds
            for one in by_folds.values():
                lines += _comparison(one, known, f"{budget.capitalize()} budget, {title}, {_named(one.folds)}")
    lines += _seeds(content, setup)
    lines += _robustness(content, setup)
    return lines


def _took(content: Mapping[str, Any]) -> str:
    """How much longer steps took in trainings than when they were timed in turns."""
    ratios = [
        spent / expected
        for setup, known in content["setups"].items()
        for spent, expected in times_of_trainings(setup, known["seconds"], content["pieces"])
    ]
    return f", {min(ratios):.2f} to {max(ratios):.2f} times as long" if ratios else ""


def _comparison(found: Comparison, known: Mapping[str, Any], title: str) -> list[str]:
    regions = list(next(iter(found.scores(next(iter(found.results))).values())))
    others = [arm for arm in (BASELINE, RECIPE) if arm in found.results]
    header = ["", "iterations", "CPU s", "CPU min", "weights", *regions, "mean Dice", _WORST, "surface Dice"]
    rows = [[*header, *(f"minus {ARMS[arm].title}" for arm in others)]]
    for arm, own in found.results.items():
        first = own[found.folds[0]]
        rows.append(
            [
                ARMS[arm].title,
                str(first["iterations"]),
                f"{known['seconds'].get(arm, first['seconds'] / first['iterations']):.2f}",
                f"{found.minutes(arm):.1f}",
                f"{first['parameters'] / 1e6:.2f} M",
                *(f"{found.mean(arm, region):.3f}" for region in regions),
                f"{found.mean(arm):.3f}",
                f"{found.worst(arm):.3f}",
                f"{found.mean(arm, metric=SURFACE):.3f}",
                *("" if arm == other else shown(found.difference(arm, other)) for other in others),
            ]
        )
    counted = f"{count_of(found.num_patients, 'patient')}, {_named(found.folds)}."
    text = [counted, f"Surface Dice at {known['tolerance_mm']:g} mm."]
    text += [
        f"{ARMS[one].title} minus {ARMS[other].title}: {shown(found.difference(one, other))}."
        for one, other in _PAIRS
        if one in found.results and other in found.results
    ]
    if "default" in found.results and BASELINE in found.results:
        text.append(_what_n_shows(found))
    return [f"### {title}", "", markdown_table(rows, right=True), "", " ".join(text), ""]


def _named(folds: Sequence[int]) -> str:
    return f"fold{'s' * (len(folds) > 1)} {folds_text(folds)}"


def _what_n_shows(found: Comparison) -> str:
    """What the number of patients can show, from the interval of the main difference."""
    n = found.num_patients
    if n < cases_needed(1):
        return (
            f"With {count_of(n, 'patient')} no test reaches a p-value of 0.05, and intervals are too narrow: the "
            "numbers describe these patients only."
        )
    least = found.detectable("default", BASELINE)
    return (
        f"With {n} patients whose differences between the default and nnU-Net's U-Net scatter like these, a paired "
        f"t-test detects a true mean difference of {least:.3f} with a power of {100 * POWER:.0f} %."
    )


def _seeds(content: Mapping[str, Any], setup: str) -> list[str]:
    """Mean Dice of the short budget on fold 0 with each seed, where there are several."""
    rows = []
    for equal, title in EQUAL.items():
        found = [one for seed in range(3) if (one := comparison(content, setup, SHORT, equal, seed=seed)) is not None]
        means = {
            arm: [own.mean(arm) for own in (_of_fold_0(one) for one in found) if arm in own.results] for arm in ARMS
        }
        for arm, values in means.items():
            if len(values) > 1:
                spread = f"{np.std(values, ddof=1):.3f}"
                rows.append([f"{ARMS[arm].title}, {title}", ", ".join(f"{value:.3f}" for value in values), spread])
    if not rows:
        return []
    table = markdown_table([["fold 0, short budget", "mean Dice of each seed", "SD"], *rows])
    return ["### Seeds", "", table, ""]


def _of_fold_0(found: Comparison) -> Comparison:
    return Comparison({arm: own for arm, own in found.results.items() if 0 in own}, (0,), found.patient)


def _robustness(content: Mapping[str, Any], setup: str) -> list[str]:
    every = tuple(itertools.product(ARMS, EQUAL))
    tables = [robustness_of_models(content, setup, models) for models in (TESTED, every)]
    by_folds = {own[TESTED[0]].folds: own for own in tables if TESTED[0] in own}  # of all models where these have them
    lines = [line for own in by_folds.values() for line in _robustness_table(own)]
    return ["### Corrupted images", "", *lines] if lines else []


def _robustness_table(found: Mapping[Model, Robustness]) -> list[str]:
    base = found[TESTED[0]]
    kinds = list(base.by_kind)
    header = ["", "clean", "corrupted", _WORST, "of complete ones", *("strength 1", "2", "3"), *kinds]
    rows = [[*(name.replace("_", " ") for name in header), "minus nnU-Net's U-Net"]]
    for (arm, equal), own in found.items():
        title = ARMS[arm].title if own is base else f"{ARMS[arm].title}, {EQUAL[equal]}"
        cells = [f"{value:.3f}" for value in (own.clean, own.mean, own.worst, own.worst_complete)]
        cells += [f"{mean:.3f} ({worst:.3f})" for mean, worst in (own.by_strength[one] for one in ("1", "2", "3"))]
        cells += [f"{own.by_kind[kind]:.3f}" for kind in kinds]
        apart = "" if own is base else shown(own.difference(base))
        rows.append([title, *cells, apart])
    text = (
        f"Models of the short budget, {_named(base.folds)}, on corrupted copies of the validation images, "
        f"{len(KINDS)} kinds in {len(STRENGTHS)} strengths: mean Dice of all regions; in brackets the {WORST}th "
        "percentile of the images. Images with missing slices are scored on those that remain, and are not among the "
        "complete ones. Half resolution means voxels 2, 3 and 4 times as large along each axis."
    )
    return [text, "", markdown_table(rows, right=True), ""]
