"""Options that several subcommands have, with the same words."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_dataset_option(parser: argparse.ArgumentParser) -> None:
    """``-d``: a data set that is there already."""
    parser.add_argument("-d", "--dataset", required=True, metavar="ID", help="data set ID, or its name DatasetXXX_Name")


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """``-m``: the folder of a trained model."""
    parser.add_argument(
        "-m", dest="model", required=True, type=Path, metavar="FOLDER", help="folder TRAINER__PLANS__CONFIGURATION"
    )


def add_checkpoint_options(parser: argparse._ActionsContainer) -> None:
    """``-chk`` and ``--trust-checkpoint``: which file of each fold is read, and how."""
    parser.add_argument(
        "-chk",
        dest="checkpoint",
        default="checkpoint_final.pth",
        metavar="NAME",
        help="(default: checkpoint_final.pth)",
    )
    parser.add_argument(
        "--trust-checkpoint", action="store_true", help="run code that checkpoints may hold; only if you trust them"
    )
