"""Compare networks and recipes on real data sets, at equal iterations and at equal training time.

    OMP_NUM_THREADS=1 nice -n 19 python -m benchmarks.real_data brats_2mm --root WORK
    python -m benchmarks.real_data brats_2mm hippocampus acdc la_x2 --list
    python -m benchmarks.real_data --page

DATA is one of brats_2mm, hippocampus, acdc and la_x2 below --data, or any data set in nnU-Net's raw layout. All arms
share plans, preprocessed data and folds, and run through nnU-Net's own commands in WORK. Equal training time is equal
CPU time of the steps with loading and augmentation, in one process on one core; on a GPU, equal time of day.

Each finished piece, a training or the predictions of corrupted images, becomes a line of the results, and the page is
written again. What the results have is not run again, in an empty WORK, too. The command can be killed at any time:
run it again to continue, within a training, too.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.nnunet_commands import ROOT
from benchmarks.real_data.arms import ARMS
from benchmarks.real_data.data import DATA_SETS, DataSet, data_set
from benchmarks.real_data.page import write_page
from benchmarks.real_data.pieces import FOLDS, Piece, length, pieces, seconds
from benchmarks.real_data.results import Results
from benchmarks.real_data.study import (
    add_options,
    check_pieces,
    check_setups,
    continuable,
    named_pieces,
    run_all,
    workspace_in,
    write_again,
)
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.markdown import markdown_table

RESULTS = ROOT / "docs" / "measured" / "real_data.json"


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.real_data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("data", nargs="*", metavar="DATA", help=f"one of {', '.join(DATA_SETS)}, or a raw data set")
    add_options(found, RESULTS)
    found.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="(default: all)")
    found.add_argument(
        "--iterations",
        type=num_iterations,
        metavar="N",
        help="of nnU-Net's U-Net in the short budget, rounded to epochs of 10 or more (default: those of DATA)",
    )
    found.add_argument(
        "--only",
        metavar="PATTERN",
        default="*",
        help="pieces to run, such as '*/short/*/fold_0/seed_0' (default: all, which takes days)",
    )
    found.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    found.add_argument("--list", action="store_true", help="list all pieces with their CPU time, and run nothing")
    return found


def num_iterations(text: str) -> int:
    """A number of iterations; argparse names this function where the text is not a number."""
    number = int(text)
    if number < 10:
        raise argparse.ArgumentTypeError(f"{number} is less than 10")
    return number


def listing(todo: Sequence[Piece], data: dict[str, DataSet], results: Results) -> str:
    """All pieces with their lengths, estimated CPU minutes, and whether they are done; then the sums."""
    content = results.read()
    rows = [["piece", "iterations", "CPU min", "done"]]
    left: dict[str, float] = {}
    for piece in todo:
        own = data[piece.data]
        minutes = seconds(piece, own, content) / 60
        is_done = piece.key in content["pieces"]
        left[piece.data] = left.get(piece.data, 0.0) + (0.0 if is_done else minutes)
        costs = content["setups"].get(piece.setup, {}).get("seconds", {})
        iterations = "" if piece.corrupted else str(length(piece, own, costs))
        rows.append([piece.key, iterations, f"{minutes:.1f}", "yes" if is_done else ""])
    sums = [f"{key}: {minutes / 60:.1f} CPU hours left" for key, minutes in left.items()]
    return "\n".join([markdown_table(rows), "", *sums])


def _pieces(options: argparse.Namespace, data: dict[str, tuple[DataSet, Path]], results: Results) -> list[Piece]:
    costs = {name: setup["seconds"] for name, setup in results.read()["setups"].items()}
    found = pieces([own for own, _ in data.values()], options.arms, costs)
    return [piece for piece in found if fnmatch.fnmatch(piece.key, options.only)]


def main(arguments: Sequence[str] | None = None) -> None:
    """List the pieces, write the page, or run what is missing."""
    options = parser().parse_args(arguments)
    results = Results(options.results)
    with continuable():
        named = [data_set(name, options.parent) for name in options.data]
        if options.iterations is not None:
            named = [(replace(own, short=options.iterations), source) for own, source in named]
        data = {own.key: (own, source) for own, source in named}
        check_pieces(results, FOLDS)
        if options.page:
            write_again(results, write_page)
        elif not data:
            raise UserError("name at least one DATA, or give --page")
        elif options.list:
            by_name = {key: own for key, (own, _) in data.items()}
            check_setups(results, data, options.device)
            print(listing(named_pieces(_pieces(options, data, results)), by_name, results))
        else:
            workspace = workspace_in(options.root, options.device)
            planned = functools.partial(_pieces, options, data, results)
            run_all(workspace, planned, data, options.arms, results, write_page)


if __name__ == "__main__":
    main()
