"""Print the shell lines that let nnU-Net find the trainer.

Print the shell lines that let the stock nnU-Net commands find nnUNetTrainerFactorizer. Meant for

    eval "$(factorizer-nnunet env)"

in a shell, in ~/.bashrc or in a job script. Folders already in nnUNet_extTrainer are kept. PYTHONWARNINGS
keeps a warning about torch's own future out of the output of every nnU-Net command.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.environment import create_folders, shell_lines


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="also set nnUNet_raw, nnUNet_preprocessed and nnUNet_results to folders of these names below DIR, "
        "and create those that do not exist",
    )


def run(args: argparse.Namespace) -> int:
    """Print the lines, or nothing on standard output if the folders cannot be created."""
    if args.root is not None and not args.root.strip():
        # --root "$UNSET" must not quietly mean the current folder
        raise UserError("--root is empty: name the parent folder of nnU-Net's three folders")
    root = None if args.root is None else Path(args.root)
    lines = shell_lines(root)
    if root is not None:
        create_folders(root)
    print("\n".join(lines))
    return 0
