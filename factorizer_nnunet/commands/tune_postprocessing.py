"""Find the postprocessing that raises the challenge's score of a trained model.

For each region, compare thresholds of its probability, a least volume of its lesions, filling of holes and removal of
all components but the largest, on the predictions that the validation of the folds left: each case was predicted by the
fold that was not trained on it. Rules are chosen by nested cross-validation and kept only where the score on held-out
cases gains beyond noise. They are written next to the model, where predict and run use them.
"""

from __future__ import annotations

import argparse
import sys

from factorizer_nnunet.commands.options import (
    add_geometry_option,
    add_model_names,
    add_shared,
    model_folder,
    request_of,
)

EPILOG = """\
Thresholds need the probabilities of the validation (nnUNetv2_train --npz, and always by factorizer-nnunet run). Nothing
is predicted again. docs/tune_postprocessing.md explains the score, the choice and the file that is written.

examples:
  factorizer-nnunet tune-postprocessing -d 4 -c 3d_fullres
  factorizer-nnunet tune-postprocessing -d 137 -c 3d_fullres --scheme brats2023-gli -np 8
  factorizer-nnunet tune-postprocessing -m MODEL_FOLDER -f 0 1 2

exit status: 0 done, with or without a gain; 2 refused, the model is as before; 130 interrupted
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    model = add_model_names(parser)
    add_shared(model, "-f", nargs="+", help="folds whose validation cases are used (default: all that are trained)")
    add_shared(parser, "--scheme", help="the challenge's scoring, as for evaluate (default: none, the mean Dice)")
    add_shared(
        parser,
        "-o",
        dest="out",
        help="folder of page and numbers (default: tune_postprocessing next to the model)",
    )
    add_shared(parser, "-r", help="labels (default: those in nnUNet_raw)")
    add_shared(parser, "-np", default=1, help="cases at the same time (default: 1)")
    parser.add_argument("--partial", action="store_true", help="allow missing folds or cases")
    add_geometry_option(parser, "compare")


def run(args: argparse.Namespace) -> int:
    """Tune, then print the rules with their gains and where they are."""
    # Imported here, so that --help does not need SimpleITK and SciPy.
    from factorizer_nnunet.core.interrupts import terminable
    from factorizer_nnunet.report import Sources
    from factorizer_nnunet.tuning.tune_rules import RuleTuningRequest, tune_rules

    request = request_of(RuleTuningRequest, args, model=model_folder(args), sources=Sources(args.references))
    with terminable():
        outcome = tune_rules(request)
    for warning in outcome.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for name, found in outcome.regions.items():
        gain = f"gain {found.gain.mean:+.4f} [{found.gain.low:+.4f}, {found.gain.high:+.4f}]"
        print(f"{name}: {found.rule}; {gain}: {'used' if found.kept else 'not used'}")
    print(f"page: {outcome.page}")
    if outcome.written is None:
        print("No rule gains beyond noise: nothing was written next to the model.")
    else:
        print(f"rules, which predict and run now use: {outcome.written}")
    return 0
