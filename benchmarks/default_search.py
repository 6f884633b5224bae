"""Search for a better default: candidates that differ from the plain form in one thing, on folds that are not reported.

    OMP_NUM_THREADS=1 nice -n 19 python -m benchmarks.default_search hippocampus brats_2mm --root WORK
    python -m benchmarks.default_search hippocampus --root WORK --arms kernels_of_5 muon --equal time --seeds 0 1 2
    python -m benchmarks.default_search --page

DATA is as for ``benchmarks.real_data``, which trains and scores the candidates: the short budget of the data set, with
as many iterations as nnU-Net's U-Net, or with as much CPU time. Each finished training becomes a line of the results,
and the page is written again; a search that was stopped continues.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.nnunet_commands import ROOT
from benchmarks.real_data.candidates import ALL_ARMS, CANDIDATES
from benchmarks.real_data.data import DATA_SETS, data_set
from benchmarks.real_data.pieces import EQUAL, ITERATIONS, SEARCH_FOLD, SHORT, TIME, Piece, is_other
from benchmarks.real_data.results import Results
from benchmarks.real_data.study import add_options, check_pieces, continuable, run_all, workspace_in, write_again
from benchmarks.real_data.summary import case_means, paired, patient_means, shown
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.report.statistics import Estimate

RESULTS = ROOT / "docs" / "measured" / "default_search.json"
REFERENCES = ("unet_ours", "plain", "plain_everywhere", "default")
_FORM = "plain"  # from which candidates differ
SEARCHED = (*REFERENCES, *CANDIDATES)
_INTRODUCTION = """\
Written by `python -m benchmarks.default_search DATA… --root WORK` from [default_search.json](default_search.json). Each
candidate differs from `plain`, the default when the search began, in what its name says; `default` is what was chosen:
two depthwise convolutions in a row below the first stage and a gating NMF. Each is trained as
[the study on real data](real_data.md) trains its short budget, with the same plans, data and augmentation:
`nnUNetv2_train`, fold 1, which is not reported there. *Cost* is the CPU time of an iteration relative to the plain
form's, as all take turns in one process; at equal training time, a candidate has correspondingly fewer iterations.
Scores are the mean Dice of the validation cases, complete images, without mirroring; differences are paired by patient,
with a 95 % bootstrap interval, which does not include the variation between training runs.

What candidates would cost on a GPU, by launches and bytes: [candidate_gpu_cost.md](candidate_gpu_cost.md)."""
_OVERVIEW = (
    "Differences of the mean Dice from the plain form, for candidates that more than one data set has; in brackets "
    "over how many seeds, if more than one."
)


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("data", nargs="*", metavar="DATA", help=f"some of {', '.join(DATA_SETS)}")
    add_options(found, RESULTS)
    found.add_argument("--arms", nargs="+", choices=SEARCHED, default=list(SEARCHED), help="(default: all)")
    found.add_argument("--equal", choices=EQUAL, default=ITERATIONS, help="(default: %(default)s)")
    found.add_argument("--seeds", nargs="+", type=int, choices=range(3), default=[0], help="(default: 0)")
    return found


def planned(options: argparse.Namespace, data: Collection[str], setups: Mapping[str, Any]) -> list[Piece]:
    """The trainings that the options ask for, in their order: a seed of all candidates before the next seed."""
    found = [
        Piece(
            data=name,
            configuration="3d_fullres",
            budget=SHORT,
            arm=arm,
            equal=options.equal,
            fold=SEARCH_FOLD,
            seed=seed,
        )
        for name, seed, arm in itertools.product(data, options.seeds, options.arms)
    ]
    return [piece for piece in found if not is_other(piece, setups.get(piece.setup, {}).get("seconds", {}))]


def write_page(results: Results) -> None:
    """Write the page next to the results."""
    write_text_atomically(results.page, page(results.read()))


def page(content: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    lines = ["# The search for a better default", "", _INTRODUCTION, ""]
    rows = overview(content)
    if len(rows) > 1:
        lines += ["## All data sets", "", _OVERVIEW, "", markdown_table(rows, right=True), ""]
    if spreads := seed_spreads(content):
        found = ", ".join(f"{spread:.3f} on {data}" for data, spread in spreads.items())
        lines += [f"Standard deviation of the plain form's mean Dice over seeds, equal iterations: {found}.", ""]
    for setup in content["setups"]:
        for equal in (ITERATIONS, TIME):
            if rows := list(_rows(content, setup, equal)):
                header = ["", "cost", "iterations", "weights", "mean Dice", "minus plain"]
                title = f"{setup.partition('/')[0]}, {EQUAL[equal]}"
                lines += [f"## {title}", "", markdown_table([header, *rows], right=True), ""]
    return "\n".join(lines)


def _piece(setup: str, equal: str, arm: str, seed: int) -> Piece:
    data, _, configuration = setup.partition("/")
    return Piece(
        data=data, configuration=configuration, budget=SHORT, arm=arm, equal=equal, fold=SEARCH_FOLD, seed=seed
    )


def _means(content: Mapping[str, Any], piece: Piece) -> dict[str, float] | None:
    """Mean Dice by patient; None if the piece is not done."""
    own = content["pieces"].get(piece.key)
    if own is None:
        return None
    return patient_means(case_means(own["scores"]), content["setups"][piece.setup]["patient"])


def _difference(content: Mapping[str, Any], setup: str, equal: str, arm: str, seed: int) -> Estimate | None:
    """A candidate minus the plain form with the same seed; None if one of them is not done."""
    own, base = (_means(content, _piece(setup, equal, one, seed)) for one in (arm, _FORM))
    return None if own is None or base is None else paired(own, base)


def seed_spreads(content: Mapping[str, Any]) -> dict[str, float]:
    """Standard deviation of the plain form's mean Dice over seeds, at equal iterations, by data set."""
    found = {}
    for setup in content["setups"]:
        of_seeds = [_means(content, _piece(setup, ITERATIONS, _FORM, seed)) for seed in range(3)]
        values = [statistics.mean(means.values()) for means in of_seeds if means is not None]
        if len(values) > 1:
            found[setup.partition("/")[0]] = statistics.stdev(values)
    return found


def overview(content: Mapping[str, Any]) -> list[list[str]]:
    """The candidates' differences from the plain form, by data set: those that more than one data set has."""
    columns = [(setup, equal) for equal in (ITERATIONS, TIME) for setup in content["setups"]]
    table: dict[str, dict[tuple[str, str], str]] = {}
    for arm in SEARCHED:
        for column in columns:
            found = [_difference(content, *column, arm, seed) for seed in range(3)]
            known = [one.mean for one in found if one is not None]
            if arm != _FORM and known:
                seeds = f" ({len(known)})" if len(known) > 1 else ""
                table.setdefault(arm, {})[column] = f"{statistics.mean(known):+.3f}{seeds}"
    several = {arm: cells for arm, cells in table.items() if len({setup for setup, _ in cells}) > 1}
    used = [column for column in columns if any(column in cells for cells in several.values())]
    header = ["minus plain", *(f"{setup.partition('/')[0]}, {EQUAL[equal]}" for setup, equal in used)]
    rows = [[ALL_ARMS[arm].title, *(cells.get(column, "") for column in used)] for arm, cells in several.items()]
    return [header, *rows]


def _rows(content: Mapping[str, Any], setup: str, equal: str) -> Iterator[list[str]]:
    """A row for each arm and seed, in the order of their Dice."""
    costs = content["setups"][setup]["seconds"]
    found = []
    for arm, seed in itertools.product(SEARCHED, range(3)):
        piece = _piece(setup, equal, arm, seed)
        if (means := _means(content, piece)) is None:
            continue
        own = content["pieces"][piece.key]
        mean = statistics.mean(means.values())
        apart = None if arm == _FORM else _difference(content, setup, equal, arm, seed)
        name = ALL_ARMS[arm].title + (f", seed {seed}" if seed else "")
        cost = f"{costs[arm] / costs[_FORM]:.2f}" if arm in costs else ""
        weights = f"{own['parameters'] / 1e6:.2f} M"
        shown_difference = "" if apart is None else shown(apart)
        found.append((mean, [name, cost, str(own["iterations"]), weights, f"{mean:.3f}", shown_difference]))
    yield from (row for _, row in sorted(found, key=lambda one: -one[0]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page, or run what is missing."""
    options = parser().parse_args(arguments)
    results = Results(options.results)
    with continuable():
        data = {own.key: (own, source) for own, source in (data_set(name, options.parent) for name in options.data)}
        check_pieces(results, [SEARCH_FOLD])
        if options.page:
            write_again(results, write_page)
        elif not data:
            raise UserError("name at least one DATA, or give --page")
        else:
            workspace = workspace_in(options.root)
            run_all(
                workspace,
                lambda: planned(options, data, results.read()["setups"]),
                data,
                options.arms,
                results,
                write_page,
            )


if __name__ == "__main__":
    main()
