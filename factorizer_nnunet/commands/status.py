"""The steps of a run: what is done, epoch, Dice, time left.

Show every step of the last run over a data set, and of each run with a name: whether it is done, running, waiting or
failed; for trainings also the epoch, the mean pseudo Dice of the last one and the time left. Everything is read from
nnU-Net's files and, if there is SLURM, from its queue.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from factorizer_nnunet.commands.options import add_dataset_option, add_run_name_option, run_name
from factorizer_nnunet.core.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = """\
examples:
  factorizer-nnunet status -d 4
  watch -n 60 factorizer-nnunet status -d 4
  factorizer-nnunet status -d 4 --name large          # only the run of this name

exit status: 0 every step is done; 1 not yet, or a step failed; 2 the run does not exist
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_dataset_option(parser)
    add_run_name_option(parser, "show only the run of this name (default: all runs over the data set)")


def run(args: argparse.Namespace) -> int:
    """Print the table of each run."""
    from factorizer_nnunet.nnunet.environment import nnunet_folder
    from factorizer_nnunet.running.request import find_requests, name_of_run

    found = find_requests(nnunet_folder("nnUNet_results", writable=False), args.dataset, run_name(args))
    names = [name_of_run(request) for request in found]
    statuses, problems = [], []
    for request, name in zip(found, names, strict=True):
        if request != found[0]:
            print()
        if any(names):
            print("run without a name:" if name is None else f"run {name}:")
        try:
            statuses.append(_print_run(request))
        except UserError as error:  # the others are shown all the same
            print("cannot be shown")
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return 0 if all(statuses) else 1


def _print_run(request: Path) -> bool:
    """Print the table of a run; returns whether every step is done.

    Raises:
        UserError: a file is damaged.
    """
    from factorizer_nnunet.running.request import read_request
    from factorizer_nnunet.running.status import all_done, read_status, status_table

    settings = read_request(request)
    try:
        lines = read_status(settings)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # Many files of nnU-Net are read here, each of which may have been edited.
        raise UserError(
            f"a plans file, folds or another JSON file of {settings.dataset} is damaged ({error!r}). Plan the data set "
            "again, or restore the file"
        ) from error
    print(status_table(lines))
    return all_done(lines)
