"""Train five folds on synthetic patients and score their ensemble.

Draw synthetic brain-tumor patients (four MR modalities in the file layout of BraTS 2021) and take them all the way
with this package's own commands: convert them, train five folds, predict held-out patients with the mean of the folds,
score, report. Each command is shown as it runs, so that you can do the same with your own data.

It takes about ten minutes on two cores. An interrupted demo continues when it is run again with the same arguments; a
finished one only shows its results again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from factorizer_nnunet.commands.options import DEVICES, add_shared

EPILOG = """\
examples:
  factorizer-nnunet demo
  factorizer-nnunet demo --out /tmp/demo --patients 15 --seed 1

in the folder afterwards:
  results.md, results.json   Dice per region, for each fold and the ensemble
  report.html                the cross-validation: every case, curves, pictures (factorizer-nnunet report)
  figure.png                 image, truth and prediction of held-out patients
  nnUNet_results/Dataset999_SyntheticBraTS2021/factorizer_run/   summary and logs (factorizer-nnunet run)
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add_shared(
        parser,
        "-o",
        "--out",
        dest="out",
        default=Path("factorizer_demo"),
        help="folder (default: ./factorizer_demo)",
    )
    add("--patients", type=int, default=25, metavar="N", help="patients, a fifth of them held out (default: 25)")
    add_shared(parser, "--seed", default=0, help="random seed of the patients (default: 0)")
    add_shared(
        parser,
        "-device",
        choices=("auto", *DEVICES),
        default="auto",
        help="where to train and predict (default: auto, which is CUDA if there is a GPU, else the CPU)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; returns the exit status."""
    # Imported here, since --help must answer without SimpleITK and matplotlib.
    from factorizer_nnunet.demo.run import run_demo

    run_demo(args.out, patients=args.patients, seed=args.seed, device=args.device)
    return 0
