"""A study's command: its options and how it ends; and its pieces, which run one after the other, once each."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from benchmarks.nnunet_commands import ROOT, CommandError
from benchmarks.output_paths import output_file
from benchmarks.real_data.data import DataSet
from benchmarks.real_data.pieces import Piece
from benchmarks.real_data.results import Results
from benchmarks.real_data.running import run_piece, set_up
from benchmarks.real_data.workspace import Workspace
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.interrupts import terminable
from factorizer_nnunet.core.locks import file_lock


def add_options(parser: argparse.ArgumentParser, results: Path) -> None:
    """``--root``, ``--data``, ``--results`` and ``--page``."""
    parser.add_argument("--root", type=Path, metavar="WORK", help="working folder")
    parser.add_argument("--data", dest="parent", type=Path, metavar="DIR", default=ROOT.parent / "shared" / "data")
    parser.add_argument("--results", type=output_file, default=results, help="JSON file to extend; page next to it")
    parser.add_argument("--page", action="store_true", help="only write the page again")


def checked_root(root: Path | None) -> Path:
    """The working folder.

    Raises:
        UserError: none was given.
    """
    if root is None:
        raise UserError("give a working folder, --root")
    return root.resolve()


def num_threads() -> int:
    """Of each process, as OMP_NUM_THREADS says."""
    return int(os.environ.get("OMP_NUM_THREADS") or 1)


@contextlib.contextmanager
def continuable() -> Iterator[None]:
    """End the process with one line if the block raises an error or is stopped."""
    try:
        with terminable():
            yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; run the command again to continue")


def write_again(results: Results, write: Callable[[Results], None]) -> None:
    """Write the page of results.

    Raises:
        UserError: there are none.
    """
    if not results.read()["pieces"]:
        raise UserError(f"{results.file} has no trainings yet")
    write(results)


def run_all(
    workspace: Workspace,
    planned: Callable[[], Collection[Piece]],
    data: Mapping[str, tuple[DataSet, Path]],
    arms: Collection[str],
    results: Results,
    write: Callable[[Results], None],
) -> None:
    """Run the pieces that are not done, in their order.

    Args:
        planned: all pieces, from what the results say of costs.
        data: the data sets and their folders, by name.
        arms: all arms of the study, whose costs are measured in turns.
        write: writes the page, after each piece.

    Raises:
        UserError: another study runs in the folder, the results are of other plans, or pieces failed; those after
            them have run.
    """
    workspace.root.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}  # by piece

    def next_piece() -> Piece | None:
        done = {*results.read()["pieces"], *failed}
        return next((piece for piece in planned() if piece.key not in done), None)

    with file_lock(workspace.root / ".lock", f"another study runs in {workspace.root}: use another --root"):
        workspace.end_earlier_commands()
        while (piece := next_piece()) is not None:
            own, source = data[piece.data]
            try:
                set_up(workspace, piece, own, source, arms, results)
                if piece == next_piece():  # costs that have just been measured may change what is to be trained
                    print(f"{piece.key} …", flush=True)
                    run_piece(workspace, piece, own, results)
                    write(results)
            except CommandError as error:
                failed[piece.key] = str(error)
                print(f"{piece.key}: {error}", flush=True)
    if failed:
        lines = [f"{key}: {message}" for key, message in failed.items()]
        raise UserError("\n  ".join(["these pieces failed; run the command again:", *lines]))
