"""Scores, figures and pictures of trained models as one HTML page.

Write results of nnU-Net as one HTML page that needs no network: how models were trained, training curves, scores per
region with 95 % intervals, every case, volumes, lesion size, pictures of the worst and best cases and, for several
results on the same cases, paired differences and tests. Result folders are not changed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from factorizer_nnunet.commands.options import add_geometry_option, add_shared, add_viewer_options

EPILOG = """\
RESULTS is a model folder (nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION with its validated folds), a folder
crossval_results_folds_… or ensemble___… of nnUNetv2_find_best_configuration, or the output of nnUNetv2_predict. By
default, references and images are taken from nnUNet_raw. Scores are computed once and saved next to the page.

examples:
  factorizer-nnunet report $nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer* --names "nnU-Net" Factorizer
  factorizer-nnunet report OUT --references labelsTs --images imagesTs -o test.html

exit status: 0 success; 2 invalid arguments or files, no page was written; 130 interrupted
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("results", nargs="+", type=Path, metavar="RESULTS", help="folders of results")
    add_shared(
        parser,
        "-o",
        "--out",
        dest="out",
        default=Path("report.html"),
        metavar="FILE",
        help="page (default: ./report.html)",
    )
    add("--names", nargs="+", metavar="NAME", help="names of the results on the page, one for each")
    add_shared(parser, "-r", help="reference segmentations")
    add_shared(
        parser,
        "-i",
        "--images",
        dest="images",
        help="images of the cases, named CASE_0000.nii.gz",
    )
    add_shared(parser, "--dataset-json", help="dataset.json to use if RESULTS has none")
    add("--channel", type=int, metavar="N", help="image channel in the pictures (default: one that shows the labels)")
    add_viewer_options(parser)
    add_shared(parser, "--scheme", help="score as in this challenge, see evaluate (default: none)")
    add("--scores", type=Path, metavar="DIR", help="where to save scores (default: next to the page)")
    add_shared(parser, "-np", default=1, help="cases scored at the same time (default: 1)")
    add_geometry_option(parser, "score")
    add("--partial", action="store_true", help="allow missing folds or cases, with a warning on the page")


def run(args: argparse.Namespace) -> int:
    """Write the report."""
    # Imported here, so that --help does not need SimpleITK and SciPy.
    from factorizer_nnunet.report import Sources, write_report

    written = write_report(
        args.results,
        args.out,
        names=args.names,
        sources=Sources(args.references, args.images, args.dataset_json),
        scheme=args.scheme,
        scores_folder=args.scores,
        num_processes=args.num_processes,
        partial=args.partial,
        channel=args.channel,
        viewer_cases=args.viewer_cases,
        viewer_mb=args.viewer_mb,
        ignore_geometry=args.ignore_geometry,
    )
    if written.kept_line is not None:
        print(written.kept_line, file=sys.stderr)
    for warning in written.warnings:
        print(f"WARNING: incomplete: {warning}", file=sys.stderr)
    for file in dict.fromkeys(written.datasets):
        print(f"dataset.json: {file}", file=sys.stderr)  # so that stdout is the page's path alone
    print(args.out)
    return 0
