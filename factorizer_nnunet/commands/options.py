"""Options that several subcommands have, with the same words."""

from __future__ import annotations

import argparse


def add_dataset_option(parser: argparse.ArgumentParser) -> None:
    """``-d``: a data set that is there already."""
    parser.add_argument("-d", "--dataset", required=True, metavar="ID", help="data set ID, or its name DatasetXXX_Name")
