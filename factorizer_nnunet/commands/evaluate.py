"""Score predictions: overlap, surface distances, volumes, lesions.

Score predictions against references, by case and region: overlap, surface distances, volumes, and lesions. Voxel sizes
are read from the files. All files are checked first; if there are problems, all are listed and nothing is written. If
interrupted, run the same command again to resume.
"""

from __future__ import annotations

import argparse
import math
import os
from typing import TYPE_CHECKING

from factorizer_nnunet.commands.options import add_geometry_option, add_shared
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.interrupts import terminable
from factorizer_nnunet.core.wording import count_of

if TYPE_CHECKING:
    from factorizer_nnunet.evaluation.lesions import LesionRule

MAX_PROCESSES = 8

EPILOG = """\
OUT will contain summary.json (nnU-Net's, extended), scores.csv (a row per case, region and metric), lesions.csv (a row
per reference lesion) and scores.md (the printed table and how it was computed).

examples:
  factorizer-nnunet evaluate -i predictions -r nnUNet_raw/Dataset004_Hippocampus/labelsTr -o scores
  factorizer-nnunet evaluate -i predictions -r labelsTs --scheme brats2023-gli -o scores
  factorizer-nnunet evaluate -i fold_0/validation -r labelsTr --only-common -o scores      # the cases of one fold
  factorizer-nnunet evaluate -i predictions -r labelsTs --match 0.5 --empty dice:both=1 lesion_f1:both=1 -o scores

schemes: none, brats2018, brats2019, brats2020, brats2021, brats2023-gli -ssa -ped -men -met, brats2024-gli -ssa -met
-ped -men-rt, brats2025-gli -ssa -met -ped -men-rt, isles2022, isles2024
The names of labels in dataset.json decide which values the regions of a challenge have. Without a dataset.json, files
must have the label values of the release. The command prints which values are scored.

exit status: 0 success; 2 invalid arguments or files, nothing was written; 130 interrupted
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add_shared(
        parser,
        "-i",
        "-p",
        "--predictions",
        dest="predictions",
        required=True,
        metavar="PREDICTIONS",
        help="folder of label files",
    )
    add_shared(parser, "-r", required=True, metavar="REFERENCES", help="folder of label files")
    add_shared(
        parser,
        "-o",
        "--out",
        dest="out",
        required=True,
        metavar="OUT",
        help="folder to write, new or empty",
    )
    add_shared(
        parser,
        "--dataset-json",
        help="names labels or regions (default: the one in or above PREDICTIONS or next to REFERENCES; without one, "
        "every label value is a region)",
    )
    add_geometry_option(parser, "score, with the reference's voxel size,")
    add_shared(parser, "--scheme", help="score as in this challenge (default: none)")
    add("--tolerances", nargs="+", type=float, metavar="MM", help="tolerances of surface Dice in mm (default: 1 2)")
    add("--only-common", action="store_true", help="score only cases that are in both folders; the others are listed")
    add(
        "--empty",
        nargs="+",
        default=[],
        metavar="METRIC:SITUATION=VALUE",
        help="value of a metric if a mask is empty; SITUATION: both, reference or prediction; VALUE: a number, "
        "undefined, or diagonal (of the image, in mm)",
    )
    add_shared(
        parser,
        "-np",
        default=min(MAX_PROCESSES, os.cpu_count() or 1),
        help="number of cases to score at the same time (default: %(default)s)",
    )
    _add_lesion_options(parser.add_argument_group("lesions, only without a scheme"))


def _add_lesion_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--connectivity", type=int, choices=(6, 18, 26), metavar="N", help="6, 18 or 26 neighbours (default: 26)")
    add("--dilation", type=int, metavar="N", help="dilate reference lesions by N voxels to merge and match them")
    add("--min-lesion", type=float, metavar="MM3", help="ignore reference lesions up to this volume")
    add(
        "--match",
        metavar="overlap|IOU",
        help="when a lesion counts as detected: one common voxel (default), or at least this IoU, one to one",
    )


def run(args: argparse.Namespace) -> int:
    """Score the cases, write the files and print the table."""
    from factorizer_nnunet.evaluation.case import TOLERANCES_MM
    from factorizer_nnunet.evaluation.dataset_files import find_dataset_json
    from factorizer_nnunet.evaluation.evaluate import evaluate_folder
    from factorizer_nnunet.evaluation.files import check_target, write_scores
    from factorizer_nnunet.evaluation.schemes import scheme_named
    from factorizer_nnunet.evaluation.table import score_table
    from factorizer_nnunet.evaluation.unfinished import saved_until_written
    from factorizer_nnunet.nnunet.dataset_json import DatasetJson

    check_target(args.out)
    scheme = scheme_named(args.scheme, _lesion_rule(args), args.empty)
    tolerances_mm = TOLERANCES_MM if args.tolerances is None else tuple(args.tolerances)
    if args.dataset_json is None:
        dataset = find_dataset_json(args.predictions, args.references)
    else:
        dataset = DatasetJson.read(args.dataset_json, "Give another file with --dataset-json")
    regions_from = dataset.path if dataset is not None else "none found; --dataset-json names one"
    print(f"dataset.json: {regions_from}")
    with terminable(), saved_until_written(args.out) as unfinished:
        scores = evaluate_folder(
            args.predictions,
            args.references,
            dataset,
            scheme,
            tolerances_mm,
            args.num_processes,
            unfinished,
            args.only_common,
            args.ignore_geometry,
        )
        write_scores(scores, args.out)
    if scores.settings["label_values"]:
        print(f"{scheme.title}: {scores.settings['label_values']}")
    print(score_table(scores))
    only_one = scores.settings["cases_in_one_folder_only"]
    if only_one:
        found = f"{count_of(len(only_one), 'case')} in only one folder"
        print(f"WARNING: {found}, not scored; see {args.out / 'scores.md'}")
    print(f"{count_of(len(scores.cases), 'case')} scored, in {args.out}")
    return 0


def _lesion_rule(args: argparse.Namespace) -> LesionRule | None:
    """The rule that the options define; None without such options."""
    from factorizer_nnunet.evaluation.lesions import LesionRule

    for option, value in (("--dilation", args.dilation), ("--min-lesion", args.min_lesion)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UserError(f"{option} {value}: expected a number of 0 or more")
    options = {"connectivity": args.connectivity, "dilation": args.dilation, "min_reference_mm3": args.min_lesion}
    given = {name: value for name, value in options.items() if value is not None}
    if args.match is not None and args.match != "overlap":
        try:
            given["min_iou"] = float(args.match)
        except ValueError:
            given["min_iou"] = 0.0
        if not 0 < given["min_iou"] <= 1:
            raise UserError(f"--match {args.match}: expected overlap, or an IoU above 0 and at most 1")
    return LesionRule(**given) if given or args.match else None
