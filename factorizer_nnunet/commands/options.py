"""Options shared by several subcommands."""

from __future__ import annotations

import argparse
from pathlib import Path

from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL


def add_dataset_option(parser: argparse.ArgumentParser) -> None:
    """``-d``: an existing data set."""
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
        default=CHECKPOINT_FINAL,
        metavar="NAME",
        help=f"file name of the checkpoint in each fold (default: {CHECKPOINT_FINAL})",
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="allow code in checkpoints to be executed; only if you trust them",
    )


def add_data_check_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--no-data-check``."""
    parser.add_argument(
        "--no-data-check",
        action="store_true",
        help="do not look at every voxel of the raw images and labels first",
    )
