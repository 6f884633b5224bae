"""Measure faster prediction settings of a trained model on its validation cases.

Measure Dice and time of a trained Factorizer on each fold's own validation cases, for combinations of NMF iterations,
window shifts, mirroring and the step of the sliding window. The settings take turns case by case. Measurements are
kept, so the same command resumes after an interruption. Prints the settings that no other beats, writes a page with a
plot, and then, for the fastest setting that loses at most --tolerance of Dice, a model folder next to the original,
which is not changed.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from factorizer_nnunet.commands.options import (
    add_device_options,
    add_model_options,
    add_shared,
    model_folder,
    request_of,
)
from factorizer_nnunet.core.interrupts import terminable

if TYPE_CHECKING:
    from factorizer_nnunet.tuning.tune import TuningOutcome

EPILOG = """\
The derived folder TRAINER__NAME__CONFIGURATION works with stock commands: nnUNetv2_predict -p NAME, and
nnUNetv2_predict_from_modelfolder -m. It contains iterations, shifts and mirroring. The tile step must be passed to
these commands as -step_size; factorizer-nnunet predict reads it from the folder. docs/tune_inference.md has an example
with figures.

examples:
  factorizer-nnunet tune-inference -d 4 -c 3d_fullres
  factorizer-nnunet tune-inference -m MODEL_FOLDER -f 0 --cases 10 --mirroring none 2 all --step-sizes 0.5 1 -device cpu

exit status: 0 done; 2 refused, or the disk is full; 130 interrupted
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    model = add_model_options(parser)
    add_shared(model, "-f", nargs="+", help="folds to measure (default: all that are trained)")
    add_device_options(parser)
    compared = parser.add_argument_group("values to compare, in every combination")
    compared.add_argument(
        "--iterations", nargs="+", type=int, metavar="N", help="NMF iterations (default: 1 and the model's)"
    )
    compared.add_argument(
        "--shifts", nargs="+", type=int, metavar="N", help="numbers of window shifts (default: 1, 2, all)"
    )
    compared.add_argument(
        "--mirroring",
        nargs="+",
        metavar="AXES",
        help="none, all, or axes such as 2 or 0,1 (default: none, the last axis, all)",
    )
    compared.add_argument(
        "--step-sizes",
        dest="steps",
        nargs="+",
        type=float,
        metavar="X",
        help="steps of the sliding window, as fractions of the patch (default: 0.5 0.75 1)",
    )
    add(
        "--cases",
        dest="max_cases",
        type=int,
        metavar="N",
        help="measure at most N cases of each fold (default: all)",
    )
    add("--tolerance", type=float, metavar="X", help="mean Dice that the chosen setting may lose (default: 0.002)")
    add_shared(parser, "--plans-name", help="plans name of the derived folder (default: the model's with _fast)")
    add("--measure-only", action="store_true", help="do not write a derived folder")
    add(
        "--report",
        type=Path,
        metavar="FOLDER",
        help="folder for page and plot (default: tune_inference next to the model)",
    )


def run(args: argparse.Namespace) -> int:
    """Tune, then print the best settings and the commands that predict with the chosen one."""
    from factorizer_nnunet.nnunet.environment import COMPILE_VARIABLE, use_own_trainer

    use_own_trainer()
    os.environ[COMPILE_VARIABLE] = "f"  # else the network would be compiled again during the measurements

    from factorizer_nnunet.tuning.search_space import SearchSpace
    from factorizer_nnunet.tuning.tune import TuningRequest, tune

    with terminable():
        search = request_of(SearchSpace, args)
        outcome = tune(request_of(TuningRequest, args, model=model_folder(args), search_space=search))
    print(outcome.table)
    print(f"\nall settings, with a plot: {outcome.page}")
    print(_result(outcome))
    return 0


def _result(outcome: TuningOutcome) -> str:
    """The choice and, if a model was derived, commands that predict with it."""
    from factorizer_nnunet.nnunet.model_folder import ModelFolder
    from factorizer_nnunet.nnunet.model_name import ModelName
    from factorizer_nnunet.tuning.selection import unfit_to_choose

    chosen = outcome.chosen
    if chosen.setting == outcome.reference:
        reason = unfit_to_choose(outcome.rows)
        if reason is not None:
            return f"Nothing was chosen: {reason}. Measure more, with a larger --cases or more folds with -f."
        return "No faster setting is good enough: nothing was derived."
    choice = f"chosen: {chosen.speed_up:.2f} times as fast, Dice {chosen.change:+.4f}"
    if outcome.derived is None:
        return choice
    model = ModelFolder(outcome.derived)
    name = ModelName.parse(outcome.derived.name)
    assert name is not None  # derived folders are named so
    common = f"-f {' '.join(fold.name for fold in model.folds())} -i IN -o OUT"
    by_name = f"-d {outcome.derived.parent.name} -c {name.configuration} -tr {name.trainer} -p {name.plans}"
    return (
        f"{choice}; written to {outcome.derived}\nto predict with it:\n"
        f"  nnUNetv2_predict {by_name} -step_size {chosen.setting.tile_step_size:g} {common}\n"
        f"  factorizer-nnunet predict {by_name} {common}"
    )
