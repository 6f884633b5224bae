"""Convert predictions to the label values and file names of a challenge.

Convert predictions of nnU-Net to the label values and file names of a challenge. Every file is first checked against
its image (shape, spacing, position, label values), and all problems are listed at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from factorizer_nnunet.commands.options import add_geometry_option, add_shared
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.interrupts import terminable

SHOWN = 10  # names of cases without a prediction

EPILOG = """\
examples:
  factorizer-nnunet to-challenge brats2021 predictions submission
  factorizer-nnunet to-challenge brats2023-gli predictions submission --zip     # submission/ and submission.zip
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("release", metavar="RELEASE", help="a name from `factorizer-nnunet convert list`")
    add("predictions", type=Path, metavar="PREDICTIONS", help="output folder of nnUNetv2_predict")
    add("out", type=Path, metavar="OUT", help="a new folder")
    add_shared(parser, "-d", help="converted data set (default: the one with these cases)")
    add("--zip", action="store_true", help="also write the same files to OUT.zip")
    add_geometry_option(parser, "accept")


def run(args: argparse.Namespace) -> int:
    """Write the submission and print a summary."""
    from factorizer_nnunet.core.wording import count_of, first_few
    from factorizer_nnunet.dataset_conversion.challenge import find_data_set, to_challenge
    from factorizer_nnunet.dataset_conversion.releases import RELEASES
    from factorizer_nnunet.nnunet.environment import nnunet_folder

    if args.release not in RELEASES:
        raise UserError(f"unknown release {args.release!r}: choose from {', '.join(RELEASES)}")
    if not args.predictions.is_dir():
        raise UserError(f"{args.predictions} is not a folder: name the output folder of a prediction")
    release = RELEASES[args.release]
    data_set = find_data_set(release, args.predictions, nnunet_folder("nnUNet_raw", writable=False), args.dataset)
    with terminable():
        submission = to_challenge(release, args.predictions, args.out, data_set, args.zip, args.ignore_geometry)
    print(f"{count_of(submission.cases, 'prediction')} written to {submission.archive or submission.folder}")
    if submission.missing:
        shown = first_few(submission.missing, SHOWN)
        print(f"WARNING: {count_of(len(submission.missing), 'case')} of {data_set.name} without a prediction: {shown}")
    return 0
