"""``factorizer-nnunet report``: results of nnU-Net as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Write one HTML page, which needs no network, about results of nnU-Net: what was trained on what, training curves, scores
per region with 95 % intervals, every case, volumes, lesion size, pictures of the worst and best cases and, for several
results on the same cases, paired differences and tests. Result folders are only read."""

EPILOG = """\
RESULTS is a model's folder (nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION with its validated folds), a
crossval_results_folds_… or ensemble___… folder of nnUNetv2_find_best_configuration, or the output of nnUNetv2_predict.
References and images are looked for in nnUNet_raw. Scores are computed once and kept beside the page.

examples:
  factorizer-nnunet report $nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer* --names "nnU-Net" Factorizer
  factorizer-nnunet report OUT --references labelsTs --images imagesTs -o test.html

exit status: 0 done; 2 wrong arguments or files, and no page was written; 130 interrupted
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "report",
        help="scores, figures and pictures of trained models as one HTML page",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="folders of results")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("report.html"), metavar="FILE", help="the page (default: ./report.html)"
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what the results are called, one for each")
    parser.add_argument("-r", "--references", type=Path, metavar="DIR", help="reference segmentations")
    parser.add_argument("-i", "--images", type=Path, metavar="DIR", help="images of the cases, CASE_0000.nii.gz")
    parser.add_argument("--dataset-json", type=Path, metavar="FILE", help="of the data set, where RESULTS has none")
    parser.add_argument("--channel", type=int, default=0, metavar="N", help="channel that is pictured (default: 0)")
    parser.add_argument("--scheme", default="none", metavar="NAME", help="challenge to score as (default: none)")
    parser.add_argument("--scores", type=Path, metavar="DIR", help="where to keep scores (default: beside the page)")
    parser.add_argument("-np", "--num-processes", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument(
        "--partial", action="store_true", help="report what is there, with a warning, if folds or cases are missing"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report."""
    # Imported here, since --help must answer without SimpleITK and SciPy.
    from factorizer_nnunet.report import Sources, write_report

    write_report(
        args.results,
        args.out,
        names=args.names,
        sources=Sources(args.references, args.images, args.dataset_json),
        scheme=args.scheme,
        scores_folder=args.scores,
        num_processes=args.num_processes,
        partial=args.partial,
        channel=args.channel,
    )
    print(args.out)
    return 0
