"""Labels that may be wrong, by predictions of models not trained on them.

Compare each training label with the prediction of the fold that was not trained on it, and list where they differ, most
suspicious first: whole lesions that are missing in the label or only there, shifted ones, classes exchanged, empty and
mirrored labels, borders. Writes a page with pictures, and a list to fill in with keep, correct or by hand. With
--apply, the list becomes a new folder of labels. Labels, predictions and model are never changed.
"""

from __future__ import annotations

import argparse
import sys

from factorizer_nnunet.commands.options import (
    add_geometry_option,
    add_model_names,
    add_shared,
    add_viewer_options,
    model_folder,
    user_path,
)
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import short
from factorizer_nnunet.pages.limits import ViewerLimits

EPILOG = """\
The model needs validated folds; with their probabilities (nnUNetv2_train --npz, and always by factorizer-nnunet run)
the list knows how sure the model was. docs/label_check.md explains the kinds of findings and what "correct" does.

examples:
  factorizer-nnunet label-check -d 4 -c 3d_fullres
  factorizer-nnunet label-check --apply label_check.csv -o labelsTr_corrected

exit status: 0 done; 2 refused, nothing written; 130 interrupted
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add_model_names(parser)
    add("--apply", type=user_path, metavar="LIST", help="write corrected labels as this filled-in list says")
    add_shared(
        parser,
        "-o",
        dest="out",
        help="folder of page and list (default: label_check next to the model); with --apply, the new folder of labels",
    )
    add_shared(parser, "-r", help="labels (default: those in nnUNet_raw)")
    add_shared(parser, "-i", dest="images", help="images (default: those in nnUNet_raw)")
    add("--channel", type=int, metavar="N", help="image channel in the pictures (default: one that shows the labels)")
    add("--pictures", type=int, default=24, metavar="N", help="findings with pictures (default: 24)")
    add_viewer_options(parser)
    add_shared(parser, "-np", default=1, help="cases checked at the same time (default: 1)")
    add("--partial", action="store_true", help="allow folds without finished validation")
    add_geometry_option(parser, "compare")


def run(args: argparse.Namespace) -> int:
    """Check labels, or apply a list; print what was written."""
    return _check(args) if args.apply is None else _apply(args)


def _check(args: argparse.Namespace) -> int:
    # Imported here, so that --help does not need SimpleITK and SciPy.
    from factorizer_nnunet.report import Sources
    from factorizer_nnunet.report.case_viewer import Display
    from factorizer_nnunet.report.label_page import LabelCheckRequest, write_label_check

    outcome = write_label_check(
        LabelCheckRequest(
            model=model_folder(args),
            out=args.out,
            sources=Sources(args.references, args.images),
            partial=args.partial,
            num_processes=args.num_processes,
            pictures=args.pictures,
            display=Display(args.channel, args.ignore_geometry, ViewerLimits(args.viewer_cases, args.viewer_mb)),
        )
    )
    for warning in outcome.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    count = len({one.case for one in outcome.findings})
    print(f"{len(outcome.findings)} findings in {count} of {outcome.num_cases} cases; the first:")
    for rank, one in enumerate(outcome.findings[:10], 1):
        size = f"{short(one.volume_ml)} ml"
        print(f"  {rank:2}  {one.case}: {one.kind.value}, {one.where}, {size}, score {one.score:.2f}")
    print(f"page: {outcome.page}\nlist to fill in: {outcome.table}")
    return 0


def _apply(args: argparse.Namespace) -> int:
    from factorizer_nnunet.label_check.corrections import apply_list

    named = [args.dataset, args.configuration, args.trainer, args.plans, args.model, args.references, args.images]
    if any(value is not None for value in named):
        raise UserError("--apply takes model and labels from the list: give only --apply and -o")
    if args.out is None:
        raise UserError("--apply needs the new folder of labels: name it with -o")
    applied = apply_list(args.apply, args.out)
    for one in applied.corrected:
        print(f"corrected: {one.case}: {one.kind.value}, {one.where}, {one.voxels} voxels")
    for one in applied.by_hand:
        print(f"to correct by hand: {one.case}: {one.kind.value}, {one.where}, at voxel {one.centre}")
    corrected = len({one.case for one in applied.corrected})
    print(f"findings kept: {len(applied.kept)}, without decision: {len(applied.undecided)}")
    print(f"labels corrected: {corrected}, copied: {applied.copied}; in {applied.folder}")
    return 0
