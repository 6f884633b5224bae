"""Learn from out-of-fold cases how far to trust a model.

Predict the validation cases of each fold by the fold that was not trained on them, and fit to their references: the
Dice that agreement of mirrored passes and the network's probabilities promise, with intervals; a temperature and
an offset that calibrate the probabilities of each label or region; and how images of the training look. The result is
quality_calibration.json in the model folder, which predict --quality and --uncertainty read. Says beforehand how many
cases are predicted, and about how long that takes; cases are kept, so the same command resumes after a stop.
"""

from __future__ import annotations

import argparse
import math
import os
from typing import TYPE_CHECKING

from factorizer_nnunet.commands.options import (
    add_device_options,
    add_model_options,
    add_shared,
    add_window_options,
    model_folder,
    request_of,
)
from factorizer_nnunet.core.interrupts import terminable
from factorizer_nnunet.postprocessing import LEAVE_OUT

if TYPE_CHECKING:
    from factorizer_nnunet.calibration.calibration_file import Calibration

EPILOG = """\
Options that change predictions, such as --disable_tta, must be those of the predictions to be judged.

examples:
  factorizer-nnunet calibrate -d 4 -c 3d_fullres
  factorizer-nnunet calibrate -m MODEL_FOLDER -f 0 1 --cases 20 -device cpu

exit status: 0 done; 2 refused, or the disk is full; 130 interrupted
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    model = add_model_options(parser)
    add_shared(
        model, "-f", nargs="+", help="folds whose validation cases are predicted (default: all that are trained)"
    )
    add_device_options(parser)
    add_window_options(parser, "no mirroring, as in the predictions to be judged")
    parser.add_argument("--num-iters", type=int, metavar="N", help="NMF iterations (default: as predict)")
    parser.add_argument("--num-shifts", type=int, metavar="N", help="window shifts (default: as predict)")
    parser.add_argument(
        LEAVE_OUT, dest="postprocessing", action="store_false", help="as predict: do not postprocess by tuned rules"
    )
    parser.add_argument(
        "--cases", dest="max_cases", type=int, metavar="N", help="at most N cases of each fold (default: all)"
    )


def run(args: argparse.Namespace) -> int:
    """Calibrate, then print what was found for each region."""
    from factorizer_nnunet.nnunet.environment import COMPILE_VARIABLE, use_own_trainer

    use_own_trainer()
    os.environ[COMPILE_VARIABLE] = "f"  # compiling would take longer than it saves

    from factorizer_nnunet.calibration.calibration_file import calibration_file
    from factorizer_nnunet.nnunet.inference_settings import InferenceSettings
    from factorizer_nnunet.quality.calibrate import CalibrationRequest, calibrate

    folder = model_folder(args)
    settings = request_of(InferenceSettings, args)
    with terminable():
        calibration = calibrate(request_of(CalibrationRequest, args, model=folder, inference_settings=settings))
    for line in _lines(calibration):
        print(line)
    print(f"written: {calibration_file(folder)}")
    return 0


def _lines(calibration: Calibration) -> list[str]:
    """What was found, a line for each region and each output of the network."""
    lines = []
    for name, region in calibration.regions.items():
        if region.model is None:
            lines.append(f"{name}: {region.num_found} cases, median Dice {region.median_dice:.3f}, no estimate")
            continue
        error = sum(abs(one.dice - one.estimate) for one in region.cases) / len(region.cases)
        lines.append(
            f"{name}: {len(region.cases)} cases, median Dice {region.median_dice:.3f}; estimates of cases that were "
            f"left out differ by {error:.3f} on average"
        )
    for name, one in calibration.outputs.items():
        if not math.isnan(one.before.ece):
            scaling = f"temperature {one.scaling.temperature:.2f}, offset {one.scaling.offset:.2f}"
            lines.append(f"{name}: {scaling}, calibration error {one.before.ece:.3f} before, {one.after.ece:.3f} after")
    return [*lines, *([f"note: {calibration.note}"] if calibration.note else [])]
