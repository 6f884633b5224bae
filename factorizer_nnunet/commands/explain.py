"""Maps of a model's components, ranked by class separation.

Predict images as nnU-Net does and show what the factors of a trained Factorizer respond to. Writes a map of each
component of its NMF heads on the image's own grid, how well each map separates each class, and one page per case
that shows the best ones. Model, images and output folder are checked before anything is written. Complete cases are
skipped, so the same command resumes after an interruption; a case's folder appears only once it
is complete.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from factorizer_nnunet.commands.options import (
    add_device_options,
    add_model_options,
    add_shared,
    add_viewer_size,
    add_window_options,
    model_folder,
    print_cases,
    print_passed_over,
    request_of,
)
from factorizer_nnunet.core.interrupts import terminable

EPILOG = """\
examples:
  factorizer-nnunet explain -i IMAGES -d 4 -c 3d_fullres -f 0 -o OUT
  factorizer-nnunet explain -i case_0000.nii.gz case_0001.nii.gz -m MODEL_FOLDER -o OUT --device cpu
  factorizer-nnunet explain -i IMAGES -m MODEL_FOLDER -o OUT --labels LABELS --stage encoder-3 --deletion 1

exit status: 0 all cases complete; 1 some failed, see the list; 2 refused, nothing written; 130 interrupted
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add_shared(
        parser,
        "-i",
        dest="images",
        required=True,
        nargs="+",
        metavar="IMAGE",
        help="folder of images CASE_0000.nii.gz, or the files of one case, one per channel",
    )
    model = add_model_options(parser)
    add_shared(model, "-f", dest="fold", default="0", help="fold whose weights are used (default: 0)")
    add_shared(
        parser,
        "-o",
        dest="out",
        required=True,
        help="output folder, with one folder per case",
    )
    add(
        "--labels",
        dest="truths",
        type=Path,
        metavar="FOLDER",
        help="folder of true segmentations CASE.nii.gz, if known",
    )
    _add_content_options(parser.add_argument_group("what is explained and written"))
    add_viewer_size(parser)
    add_device_options(parser)
    add_window_options(parser, "predict without mirroring; maps never use it")


def _add_content_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--stage",
        dest="stages",
        nargs="+",
        metavar="STAGE",
        help="stages such as encoder-3 or decoder-1, counted from the highest resolution (default: all with an NMF)",
    )
    add("--head", dest="heads", nargs="+", type=int, metavar="N", help="heads, counted from 1 (default: all)")
    add(
        "--format",
        dest="formats",
        type=lambda text: tuple(filter(None, text.split(","))),
        metavar="LIST",
        help="any of nifti,png,html, separated by commas (default: all)",
    )
    add(
        "--top",
        type=int,
        default=3,
        metavar="N",
        help="show the best N components of each class and stage (default: 3)",
    )
    add(
        "--deletion",
        type=int,
        default=0,
        metavar="N",
        help="deletion test: predict again without each of the best N heads of each class and stage (default: 0)",
    )
    add(
        "--loadings",
        dest="with_loadings",
        action="store_true",
        help="also write the columns of U, as 4D files with one volume per channel",
    )


def run(args: argparse.Namespace) -> int:
    """Explain, then print how many cases are complete and which failed."""
    from factorizer_nnunet.explain.run import ExplainRequest, explain
    from factorizer_nnunet.nnunet.environment import use_own_trainer

    use_own_trainer()
    with terminable():
        outcome = explain(request_of(ExplainRequest, args, model=model_folder(args)))
    print_passed_over(outcome.passed_over, args.images[0])
    for folder in outcome.set_aside:
        print(f"explained again, since images or labels have changed; the old folder is now {folder}")
    return print_cases("explained", outcome.explained, outcome.skipped, outcome.failed, outcome.warnings, args.out)
