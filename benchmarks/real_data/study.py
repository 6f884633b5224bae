"""Run the pieces of a study one after the other; what has results is not run again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from benchmarks.nnunet_commands import CommandError
from benchmarks.real_data.data import DataSet
from benchmarks.real_data.pieces import Piece
from benchmarks.real_data.results import Results
from benchmarks.real_data.running import run_piece, set_up
from benchmarks.real_data.workspace import Workspace
from factorizer_nnunet.core.locks import file_lock


def run_all(
    workspace: Workspace,
    planned: Callable[[], Collection[Piece]],
    data: Mapping[str, tuple[DataSet, Path]],
    arms: Collection[str],
    results: Results,
    write: Callable[[Results], None],
) -> list[str]:
    """Run the pieces that are not done, in their order; returns what failed.

    Args:
        planned: all pieces, from what the results say of costs.
        data: the data sets and their folders, by name.
        arms: all arms of the study, whose costs are measured in turns.
        write: writes the page, after each piece.

    Raises:
        UserError: another study runs in the folder, or the results are of other plans.
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
    return [f"{key}: {message}" for key, message in failed.items()]
