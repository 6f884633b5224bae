"""``factorizer-nnunet explain``: maps of the components of a trained Factorizer, ranked by class separation."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from factorizer_nnunet.commands.options import add_checkpoint_options, add_model_option
from factorizer_nnunet.core.interrupts import terminable

HELP = "maps of a model's components, ranked by class separation"
DESCRIPTION = """\
Predict images as nnU-Net does and show what the factors of a trained Factorizer respond to. Writes a map of each
component of its NMF heads on the image's own grid, how well each map separates each class, and one page per case
that shows the best ones. Model, images and output folder are checked before anything is written. Complete cases are
skipped, so the same command resumes after an interruption; a case's folder appears only once it
is complete."""

EPILOG = """\
examples:
  factorizer-nnunet explain -i IMAGES -m MODEL_FOLDER -f 0 -o OUT
  factorizer-nnunet explain -i case_0000.nii.gz case_0001.nii.gz -m MODEL_FOLDER -o OUT --device cpu
  factorizer-nnunet explain -i IMAGES -m MODEL_FOLDER -o OUT --labels LABELS --stage encoder-3 --deletion 1

exit status: 0 all cases complete; 1 some failed, see the list; 2 refused, nothing written; 130 interrupted
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "-i",
        dest="images",
        required=True,
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="folder of images CASE_0000.nii.gz, or the files of one case, one per channel",
    )
    add_model_option(parser)
    parser.add_argument("-f", dest="fold", default="0", metavar="FOLD", help="fold whose weights are used (default: 0)")
    parser.add_argument(
        "-o", dest="out", required=True, type=Path, metavar="FOLDER", help="output folder, with one folder per case"
    )
    add_checkpoint_options(parser)
    parser.add_argument(
        "--labels", type=Path, metavar="FOLDER", help="folder of true segmentations CASE.nii.gz, if known"
    )
    _add_content_options(parser.add_argument_group("what is explained and written"))
    parser.add_argument("-device", "--device", choices=["cuda", "cpu", "mps"], default="cuda", help="(default: cuda)")
    parser.add_argument(
        "-step_size",
        type=float,
        metavar="X",
        help="step of the sliding window, as a fraction of the patch (default: the model's, nnU-Net's 0.5)",
    )
    parser.add_argument("--disable_tta", action="store_true", help="predict without mirroring; maps never use it")
    parser.add_argument("--disable_progress_bar", action="store_true", help="show no progress bar")


def _add_content_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--stage",
        nargs="+",
        default=[],
        metavar="STAGE",
        help="stages such as encoder-3 or decoder-1, counted from the highest resolution (default: all with an NMF)",
    )
    group.add_argument(
        "--head", nargs="+", type=int, default=[], metavar="N", help="heads, counted from 1 (default: all)"
    )
    group.add_argument(
        "--format",
        default="nifti,png,html",
        metavar="LIST",
        help="any of nifti,png,html, separated by commas (default: all)",
    )
    group.add_argument(
        "--top",
        type=int,
        default=3,
        metavar="N",
        help="show the best N components of each class and stage (default: 3)",
    )
    group.add_argument(
        "--deletion",
        type=int,
        default=0,
        metavar="N",
        help="deletion test: predict again without each of the best N heads of each class and stage (default: 0)",
    )
    group.add_argument(
        "--loadings", action="store_true", help="also write the columns of U, as 4D files with one volume per channel"
    )


def run(args: argparse.Namespace) -> int:
    """Explain, then print how many cases are complete and which failed."""
    from factorizer_nnunet.nnunet.environment import EXT_TRAINER_VARIABLE, ext_trainer_value

    # So that nnU-Net finds our trainer even if the shell was not set up.
    os.environ[EXT_TRAINER_VARIABLE] = ext_trainer_value(os.environ.get(EXT_TRAINER_VARIABLE))

    from factorizer_nnunet.explain.run import ExplainRequest, explain

    request = ExplainRequest(
        model=args.model,
        images=tuple(args.images),
        out=args.out,
        fold=args.fold,
        truths=args.labels,
        stages=tuple(args.stage),
        heads=tuple(args.head),
        formats=tuple(filter(None, args.format.split(","))),
        top=args.top,
        deletion=args.deletion,
        with_loadings=args.loadings,
        checkpoint=args.checkpoint,
        device=args.device,
        tile_step_size=args.step_size,
        use_mirroring=not args.disable_tta,
        trusted=args.trust_checkpoint,
        progress_bar=not args.disable_progress_bar,
    )
    with terminable():
        outcome = explain(request)
    print(
        f"explained: {len(outcome.explained)}, complete before: {len(outcome.skipped)}, failed: {len(outcome.failed)}; "
        f"in {args.out}"
    )
    for case, reason in outcome.failed.items():
        print(f"failed: {case}: {reason}", file=sys.stderr)
    return 1 if outcome.failed else 0
