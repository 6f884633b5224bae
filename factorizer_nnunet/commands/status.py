"""The steps of a run: what is done, epoch, Dice, time left.

Show every step of the last run over a data set: whether it is done, running, waiting or failed; for trainings also the
epoch, the mean pseudo Dice of the last one and the time left. Everything is read from nnU-Net's files and, if there is
SLURM, from its queue.
"""

from __future__ import annotations

import argparse

from factorizer_nnunet.commands.options import add_dataset_option
from factorizer_nnunet.core.errors import UserError

EPILOG = """\
examples:
  factorizer-nnunet status -d 4
  watch -n 60 factorizer-nnunet status -d 4

exit status: 0 every step is done; 1 not yet, or a step failed; 2 there is no such run
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_dataset_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from factorizer_nnunet.nnunet.environment import nnunet_folder
    from factorizer_nnunet.running.request import read_request
    from factorizer_nnunet.running.status import all_done, read_status, status_table

    settings = read_request(nnunet_folder("nnUNet_results", writable=False), args.dataset)
    try:
        lines = read_status(settings)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # Many files of nnU-Net are read here, each of which may have been edited.
        raise UserError(
            f"a plans file, folds or another JSON file of {settings.dataset} is damaged ({error!r}). Plan the data set "
            "again, or restore the file"
        ) from error
    print(status_table(lines))
    return 0 if all_done(lines) else 1
