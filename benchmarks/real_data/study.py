"""A study's command: its options and how it ends; and its pieces, which run one after the other, once each."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import torch

from benchmarks.nnunet_commands import ROOT, CommandError
from benchmarks.output_paths import json_output
from benchmarks.real_data.data import DataSet, digest
from benchmarks.real_data.pieces import Piece
from benchmarks.real_data.results import Results
from benchmarks.real_data.running import check_same, run_piece, set_up
from benchmarks.real_data.workspace import Workspace
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.interrupts import terminable
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.core.wording import count_of


def add_options(parser: argparse.ArgumentParser, results: Path) -> None:
    """``--root``, ``--data``, ``--results`` and ``--page``."""
    parser.add_argument("--root", type=Path, metavar="WORK", help="working folder, made if it does not exist")
    shared = ROOT.parent / "shared" / "data"
    folder = "folder of DATA (default: %(default)s)"
    parser.add_argument("--data", dest="parent", type=Path, metavar="DIR", default=shared, help=folder)
    parser.add_argument("--results", type=json_output, default=results, help="JSON file to extend; page next to it")
    parser.add_argument("--page", action="store_true", help="only write the page again")


def checked_root(root: Path | None) -> Path:
    """The working folder.

    Raises:
        UserError: none was given, or it is a file.
    """
    if root is None:
        raise UserError("give a working folder, --root")
    if root.exists() and not root.is_dir():
        raise UserError(f"--root {root} is not a folder: name another")
    return root.resolve()


def num_threads() -> int:
    """Of each process, as OMP_NUM_THREADS says.

    Raises:
        UserError: it is not a positive number.
    """
    value = os.environ.get("OMP_NUM_THREADS") or "1"
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"OMP_NUM_THREADS is {value!r}, expected a positive number")
    return int(value)


def workspace_in(root: Path | None, device: str = "cpu") -> Workspace:
    """The working folder with what its commands run on.

    Raises:
        UserError: the folder or OMP_NUM_THREADS is wrong, or PyTorch finds no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch finds no GPU: install its CUDA build, or leave out --device cuda")
    return Workspace(checked_root(root), device, num_threads())


@contextlib.contextmanager
def continuable() -> Iterator[None]:
    """End the process with one line if the block raises an error or is stopped."""
    try:
        with terminable():
            yield
    except (UserError, OSError) as error:  # the latter name the file
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; run the command again to continue")


def check_pieces(results: Results, folds: Collection[int]) -> None:
    """See that results are of a study on these folds.

    Raises:
        UserError: they have pieces of others, or of unknown setups.
    """
    content = results.read()
    named = tuple(f"/fold_{fold}/" for fold in folds)
    for key in content["pieces"]:
        if "/".join(key.split("/")[:2]) not in content["setups"] or not any(name in key for name in named):
            raise UserError(f"{results.file}: {key} is not a piece of this study; name its results (--results)")


def check_setups(results: Results, data: Mapping[str, tuple[DataSet, Path]], device: str) -> None:
    """See that results are of the same data, short budgets and device, which is known before data are prepared.

    Raises:
        UserError: something differs.
    """
    known = results.read()["setups"]
    for own, source in data.values():
        now = digest(source)
        for configuration in own.configurations:
            setup = f"{own.key}/{configuration}"
            if known.get(setup, {}).get("digest", now) != now:
                raise UserError(
                    f"{results.file} has results of other data named {own.key}, or these have changed since: write the "
                    "new ones to another file (--results)"
                )
            check_same(results, setup, {"iterations": own.short, "device": device})


def named_pieces(found: list[Piece]) -> list[Piece]:
    """The pieces that a pattern names.

    Raises:
        UserError: there are none.
    """
    if not found:
        raise UserError("no piece is named so; --list without --only shows their names")
    return found


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
    planned: Callable[[], list[Piece]],
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
        UserError: nothing was planned, another study runs in the folder, the results are of others, or pieces failed;
            those after them have run.
    """
    named_pieces(planned())
    check_setups(results, data, workspace.device)
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
    total = len(planned())
    page = f"; page: {results.page}" if results.page.exists() else ""
    print(f"done: {total - len(failed)} of {count_of(total, 'piece')}{page}")
    if failed:
        lines = [f"{key}: {message}" for key, message in failed.items()]
        raise UserError("\n  ".join(["these pieces failed; correct what the logs say, then run it again:", *lines]))
