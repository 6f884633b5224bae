"""``factorizer-nnunet evaluate``: scores of a folder of predictions."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.interrupts import terminable

if TYPE_CHECKING:
    from factorizer_nnunet.evaluation.lesions import LesionRule

MAX_PROCESSES = 8

DESCRIPTION = """\
Score predictions against references, per case and region: overlap, distances between surfaces, volumes, and lesion by
lesion. Voxel sizes are taken from the files. All files are checked first, and all problems are listed at once; nothing
is written unless there are none. If it is interrupted, the same command goes on where it was."""

EPILOG = """\
OUT gets summary.json (nnU-Net's, with more in it), scores.csv (a row per case, region and metric), lesions.csv (a row
per reference lesion) and scores.md (the table that is printed, and how all was counted).

examples:
  factorizer-nnunet evaluate -p predictions -r nnUNet_raw/Dataset004_Hippocampus/labelsTr -o scores
  factorizer-nnunet evaluate -p predictions -r labelsTs --scheme brats2023-gli -o scores
  factorizer-nnunet evaluate -p fold_0/validation -r labelsTr --only-common -o scores      # the cases of one fold
  factorizer-nnunet evaluate -p predictions -r labelsTs --match 0.5 --empty dice:both=1 lesion_f1:both=1 -o scores

schemes: none, brats2018, brats2019, brats2020, brats2021, brats2023-gli -ssa -ped -men -met, brats2024-gli -ssa -met
-ped -men-rt, brats2025-gli -ssa -met -ped -men-rt, isles2022, isles2024
They expect the label values of the release, or for BraTS to 2021 the regions of dataset.json.

exit status: 0 done; 2 wrong arguments or files, and nothing was written; 130 interrupted
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="scores of predictions: overlap, surface distances, volumes, lesions",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-p", "--predictions", type=Path, required=True, metavar="PREDICTIONS", help="folder")
    parser.add_argument("-r", "--references", type=Path, required=True, metavar="REFERENCES", help="folder")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="a new folder")
    parser.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="names labels or regions (default: that beside or above the predictions or beside the references; if "
        "there is none, every label value is a region)",
    )
    parser.add_argument(
        "--scheme", default="none", metavar="SCHEME", help="score as this challenge does (default none)"
    )
    parser.add_argument(
        "--tolerances",
        nargs="+",
        type=float,
        metavar="MM",
        help="of normalised surface Dice, in mm (default 1 2)",
    )
    parser.add_argument(
        "--only-common", action="store_true", help="score the cases that both folders have; the others are named"
    )
    parser.add_argument(
        "--empty",
        nargs="+",
        default=[],
        metavar="METRIC:SITUATION=VALUE",
        help="what a metric is worth where both, only the reference or only the prediction is empty; VALUE is a "
        "number, undefined, or diagonal (of the image, in mm)",
    )
    lesions = parser.add_argument_group("lesions, if no scheme says it")
    lesions.add_argument(
        "--connectivity", type=int, choices=(6, 18, 26), metavar="N", help="neighbours, 6, 18 or 26 (default)"
    )
    lesions.add_argument(
        "--dilation", type=int, metavar="N", help="voxels by which reference lesions are dilated to join and match them"
    )
    lesions.add_argument(
        "--min-lesion", type=float, metavar="MM3", help="volume up to which reference lesions count not"
    )
    lesions.add_argument(
        "--match", metavar="overlap|IOU", help="what finds a lesion: one common voxel (default), or an IoU, one to one"
    )
    parser.add_argument(
        "-np",
        "--num-processes",
        type=int,
        default=min(MAX_PROCESSES, os.cpu_count() or 1),
        metavar="N",
        help="cases at a time (default %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score, write and print the table."""
    from factorizer_nnunet.core.json_files import load_json_object
    from factorizer_nnunet.evaluation.files import check_target, write_scores
    from factorizer_nnunet.evaluation.folder import TOLERANCES_MM, evaluate_folder, find_dataset_json
    from factorizer_nnunet.evaluation.table import score_table
    from factorizer_nnunet.evaluation.unfinished import kept_until_written

    if args.num_processes < 1:
        raise UserError(f"-np {args.num_processes}: give 1 or more")
    check_target(args.out)
    if args.dataset_json is not None:
        dataset_json = load_json_object(args.dataset_json, "Give another one with --dataset-json")
    else:
        dataset_json = find_dataset_json(args.predictions, args.references)
    with terminable(), kept_until_written(args.out) as kept:
        scores = evaluate_folder(
            args.predictions,
            args.references,
            dataset_json,
            args.scheme,
            args.num_processes,
            TOLERANCES_MM if args.tolerances is None else tuple(args.tolerances),
            args.only_common,
            _lesion_rule(args),
            args.empty,
            kept,
        )
        write_scores(scores, args.out)
    print(score_table(scores))
    alone = scores.settings["cases_in_one_folder_only"]
    if alone:
        print(f"WARNING: cases that only one folder has, not scored: {len(alone)}; {args.out / 'scores.md'} names them")
    print(f"{len(scores.cases)} cases scored, in {args.out}")
    return 0


def _lesion_rule(args: argparse.Namespace) -> LesionRule | None:
    """The rule that options ask for; None if none does."""
    from factorizer_nnunet.evaluation.lesions import LesionRule

    for option, value in (("--dilation", args.dilation), ("--min-lesion", args.min_lesion)):
        if value is not None and value < 0:
            raise UserError(f"{option} {value}: give 0 or more")
    given = {"connectivity": args.connectivity, "dilation": args.dilation, "min_reference_mm3": args.min_lesion}
    asked = {name: value for name, value in given.items() if value is not None}
    if args.match is not None and args.match != "overlap":
        try:
            asked["min_iou"] = float(args.match)
        except ValueError:
            asked["min_iou"] = 0.0
        if not 0 < asked["min_iou"] <= 1:
            raise UserError(f"--match {args.match}: give overlap, or an IoU above 0 and at most 1")
    return LesionRule(**asked) if asked or args.match else None
