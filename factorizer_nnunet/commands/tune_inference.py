"""``factorizer-nnunet tune-inference``: what faster predictions cost, measured, and a model folder that predicts so."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from factorizer_nnunet.commands.options import add_checkpoint_options, add_model_option
from factorizer_nnunet.core.interrupts import terminable

if TYPE_CHECKING:
    from factorizer_nnunet.tuning.tune import Tuned

DESCRIPTION = """\
Measure Dice and time of a trained Factorizer on each fold's own validation cases: iterations of the NMF x shifts of its
windows x mirroring x step of the tiles. The settings take turns case by case; what was measured is kept, and the same
command goes on after a stop. Prints the settings that no other beats, writes a page with a plot, and then a model
folder beside the original, which stays as it is, for the fastest setting that loses at most --tolerance of Dice."""

EPILOG = """\
The derived folder TRAINER__NAME__CONFIGURATION serves stock commands: nnUNetv2_predict -p NAME, and
nnUNetv2_predict_from_modelfolder -m. It holds iterations, shifts and mirroring; the tile step must be given to them as
-step_size, factorizer-nnunet predict finds it there. docs/tune_inference.md has an example with figures.

examples:
  factorizer-nnunet tune-inference -m $nnUNet_results/DATASET/TRAINER__PLANS__CONFIG
  factorizer-nnunet tune-inference -m MODEL_FOLDER -f 0 --cases 10 --mirroring none 2 all --step-sizes 0.5 1 -device cpu

exit status: 0 done; 2 refused, or the disk is full; 130 interrupted
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "tune-inference",
        help="faster predictions of a trained model, measured on its validation cases",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_option(parser)
    parser.add_argument("-f", dest="folds", nargs="+", metavar="FOLD", help="folds to measure (default: all there are)")
    add_checkpoint_options(parser)
    parser.add_argument("-device", choices=["cuda", "cpu", "mps"], default="cuda", help="(default: cuda)")
    compared = parser.add_argument_group("what is compared, each with each, and with the stock command's way")
    compared.add_argument("--iterations", nargs="+", type=int, metavar="N", help="(default: 1, and those of the model)")
    compared.add_argument("--shifts", nargs="+", type=int, metavar="N", help="how many (default: 1, 2, all)")
    compared.add_argument(
        "--mirroring",
        nargs="+",
        metavar="AXES",
        help="none, all, or axes as in 2 or 0,1 (default: none, the last, all)",
    )
    compared.add_argument(
        "--step-sizes", nargs="+", type=float, metavar="X", help="of the tiles, in patches (default: 0.5 0.75 1)"
    )
    parser.add_argument("--cases", type=int, metavar="N", help="at most N cases of each fold (default: all)")
    parser.add_argument(
        "--tolerance", type=float, metavar="X", help="mean Dice that may be lost (default: 0.002); 0: none"
    )
    parser.add_argument("--plans-name", metavar="NAME", help="of the derived folder (default: the model's with _fast)")
    parser.add_argument("--measure-only", action="store_true", help="write no derived folder")
    parser.add_argument(
        "--report", type=Path, metavar="FOLDER", help="for page and plot (default: tune_inference beside the model)"
    )
    parser.add_argument("--disable_progress_bar", action="store_true", help="for logs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Tune, then show the settings that nothing beats and how to predict with the one that was chosen."""
    from factorizer_nnunet.nnunet.environment import COMPILE_VARIABLE, EXT_TRAINER_VARIABLE, ext_trainer_value

    os.environ[EXT_TRAINER_VARIABLE] = ext_trainer_value(os.environ.get(EXT_TRAINER_VARIABLE))
    os.environ[COMPILE_VARIABLE] = "f"  # a compiled network would be compiled anew in the middle of the measurements

    from factorizer_nnunet.tuning.selection import DEFAULT_TOLERANCE
    from factorizer_nnunet.tuning.settings import DEFAULT_STEPS, Choices
    from factorizer_nnunet.tuning.tune import TuningRequest, tune

    request = TuningRequest(
        model=args.model,
        folds=_tuple(args.folds),
        checkpoint=args.checkpoint,
        device=args.device,
        choices=Choices(
            iterations=_tuple(args.iterations),
            shifts=_tuple(args.shifts),
            mirroring=_tuple(args.mirroring),
            steps=_tuple(args.step_sizes) or DEFAULT_STEPS,
        ),
        most_cases=args.cases,
        tolerance=DEFAULT_TOLERANCE if args.tolerance is None else args.tolerance,
        plans_name=args.plans_name,
        only_measure=args.measure_only,
        report=args.report,
        trusted=args.trust_checkpoint,
        progress_bar=not args.disable_progress_bar,
    )
    with terminable():
        tuned = tune(request)
    print(tuned.table)
    print(f"\nall settings, with a plot: {tuned.page}")
    print(_outcome(tuned, args.measure_only))
    return 0


def _outcome(tuned: Tuned, only_measured: bool) -> str:
    chosen = tuned.chosen
    if chosen.setting == tuned.reference:
        return "No faster setting is good enough: nothing was derived."
    words = f"chosen: {chosen.speed_up:.2f} times as fast, Dice {chosen.change:+.4f}"
    if only_measured:
        return words
    model = tuned.derived
    trainer, plans, configuration = model.name.split("__")
    common = f"-f {' '.join(sorted(path.name.removeprefix('fold_') for path in model.glob('fold_*')))} -i IN -o OUT"
    by_name = f"-d {model.parent.name} -c {configuration} -tr {trainer} -p {plans}"
    return (
        f"{words}; written to {model}\npredict so:\n"
        f"  nnUNetv2_predict {by_name} -step_size {chosen.setting.tile_step_size:g} {common}\n"
        f"  factorizer-nnunet predict {by_name} {common}"
    )


def _tuple(values: list | None) -> tuple | None:
    return None if values is None else tuple(values)
