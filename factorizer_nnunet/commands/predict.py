"""Predict images with trained folds.

Predict the images of a folder, with the options, file names and results of nnUNetv2_predict, for models of Factorizer
and of any other trainer. Differences: model, images and output folder are checked before anything is computed;
checkpoints are read without executing code in them; cases that were predicted from the same images are skipped, so the
same command continues after a stop, and several commands share a folder; cases appear complete or not at all; a case
that fails is listed at the end and does not stop the others.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from factorizer_nnunet.commands.options import (
    add_device_options,
    add_model_options,
    add_shared,
    add_viewer_options,
    add_window_options,
    model_folder,
    print_cases,
    print_passed_over,
    request_of,
    user_path,
)
from factorizer_nnunet.core.interrupts import terminable
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.nnunet.model_folder import POSTPROCESSING_FILE
from factorizer_nnunet.pages.limits import ViewerLimits
from factorizer_nnunet.postprocessing import LEAVE_OUT

if TYPE_CHECKING:
    from factorizer_nnunet.prediction.request import PredictionRequest

EPILOG = """\
examples:
  factorizer-nnunet predict -d 4 -c 3d_fullres -i IMAGES -o OUT
  factorizer-nnunet predict -d 4 -c 3d_fullres -tr nnUNetTrainer -p nnUNetPlans -f all -i IMAGES -o OUT
  factorizer-nnunet predict -d 4 -c 3d_fullres --num-iters 1 --disable_tta -i IMAGES -o OUT
  factorizer-nnunet predict -m MODEL_FOLDER -f 0 1 -i IMAGES -o OUT --save_probabilities -device cpu
  factorizer-nnunet predict -m EXPORTED.zip -i IMAGES -o OUT
  factorizer-nnunet predict -m MODEL_FOLDER --ensemble-with OTHER_MODEL_FOLDER -i IMAGES -o OUT
  factorizer-nnunet predict -m MODEL_FOLDER --quality --uncertainty -i IMAGES -o OUT     # after calibrate

exit status: 0 all cases are predicted; 1 some failed, see the list; 2 wrong input, or no space left; 130 interrupted
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add_shared(parser, "-i", dest="images", required=True, help="images CASE_0000.nii.gz")
    add_shared(parser, "-o", dest="out", required=True, help="output folder")
    model = add_model_options(parser)
    add_shared(model, "-f", nargs="+", help="folds (default: 0 to 4, or all that an exported model has)")
    add_device_options(parser)
    add_window_options(parser, "no mirroring: faster, less accurate")
    add(
        "--num-iters",
        type=int,
        metavar="N",
        help="NMF iterations of a Factorizer (default: nnUNet_factorizer_num_iters, or the model's)",
    )
    add(
        "--num-shifts",
        type=int,
        metavar="N",
        help="number of its window shifts, evenly spread (default: nnUNet_factorizer_num_shifts, or the model's)",
    )
    add("--save_probabilities", action="store_true", help="also CASE.npz and CASE.pkl, for ensembles")
    for option, what in (("npp", "preprocessing"), ("nps", "export")):
        add(
            f"-{option}",
            type=int,
            metavar="N",
            help=f"number of processes for {what} (default: nnUNet_{option}, or by device and cores); 0: no extra one",
        )
    add(
        "--ensemble-with",
        nargs="+",
        default=(),
        type=user_path,
        metavar="MODEL_FOLDER",
        help="decide labels by the mean of this model's and these models' probabilities, in one pass",
    )
    add(
        "-prev_stage_predictions",
        dest="previous_stages",
        nargs="+",
        default=(),
        type=user_path,
        metavar="FOLDER",
        help="predictions of the previous stage, one folder for each model that is a cascade",
    )
    add("--not_on_device", dest="on_device", action="store_false", help="keep results in main memory, for large images")
    add(
        "--memory",
        type=float,
        metavar="GB",
        help="that all processes may take together (default: what is free, less a tenth); bounds their number",
    )
    add(
        "--skip-empty-tiles",
        action="store_true",
        help="parts of the image without any contrast are background, without running the network on them",
    )
    add(
        "--sums-on-disk",
        type=user_path,
        metavar="FOLDER",
        help="keep sums of tiles in a file there instead of in memory, for many classes on a small machine",
    )
    add(
        LEAVE_OUT,
        dest="postprocessing",
        action="store_false",
        help="do not postprocess as tune-postprocessing has found best",
    )
    add(
        "--quality",
        action="store_true",
        help="compare the passes of each case and write how far to trust it: quality.csv, quality.json, quality.html",
    )
    add(
        "--uncertainty",
        action="store_true",
        help="also maps of entropy and disagreement and, if the model is calibrated, of calibrated probabilities",
    )
    add_viewer_options(parser)
    add("-num_parts", type=int, metavar="N", help="number of commands that share the cases (default: 1)")
    add("-part_id", type=int, metavar="N", help="which of them this is, counted from 0 (default: 0)")
    add(
        "--continue_prediction",
        "--c",
        action="store_true",
        help="keep segmentations that nnUNetv2_predict wrote; those of this command are always kept",
    )
    add("--verbose", action="store_true", help="print the time of each stage of a case")


def run(args: argparse.Namespace) -> int:
    """Predict, then print the number of cases and those that failed."""
    from factorizer_nnunet.nnunet.environment import use_own_trainer
    from factorizer_nnunet.nnunet.image_files import check_images_folder

    check_images_folder(args.images)  # again below, once torch and nnU-Net are imported, which takes seconds
    use_own_trainer()
    model = model_folder(args)

    from factorizer_nnunet.nnunet.inference_settings import ITERATIONS_VARIABLE, SHIFTS_VARIABLE, InferenceSettings
    from factorizer_nnunet.prediction.predict import predict
    from factorizer_nnunet.prediction.request import PredictionRequest

    # An option takes precedence over its variable, which our trainer obeys when it builds the network.
    for value, variable in ((args.num_iters, ITERATIONS_VARIABLE), (args.num_shifts, SHIFTS_VARIABLE)):
        if value is not None:
            os.environ.pop(variable, None)
    request = request_of(
        PredictionRequest,
        args,
        model=model,
        preprocessing_processes=_processes(args.npp, "nnUNet_npp"),
        export_processes=_processes(args.nps, "nnUNet_nps"),
        inference_settings=request_of(InferenceSettings, args),
    )
    request.check()
    if request.uncertainty:
        request = _calibrated(request)
    with terminable():
        outcome = predict(request)
    print_passed_over(outcome.passed_over, args.images)
    if outcome.postprocessing is not None:
        print(f"postprocessed by {model / POSTPROCESSING_FILE}: {outcome.postprocessing}")
    for line in outcome.set_aside:
        print(f"predicted again: {line}")
    for case, reason in outcome.kept.items():
        print(f"kept: {case}: {reason}")
    before = [*outcome.skipped, *outcome.kept]
    status = print_cases("predicted", outcome.predicted, before, outcome.failed, outcome.warnings, args.out)
    if request.quality:
        _assess(request.out, ViewerLimits(args.viewer_cases, args.viewer_mb), outcome.failed)
    return status


def _calibrated(request: PredictionRequest) -> PredictionRequest:
    """The request with what calibrates its model, if that is about these checkpoints and settings."""
    from factorizer_nnunet.quality.scalings import scalings_for

    scalings, note = scalings_for(request)
    if note:
        print(f"note: {note}")
    return replace(request, scalings=scalings)


def _assess(folder: Path, limits: ViewerLimits, failed: Mapping[str, str]) -> None:
    """Write tables and worklist of all cases in a folder, and print where they are and which case is first."""
    from factorizer_nnunet.quality.write import write_quality

    found = write_quality(folder, limits, failed)
    for judge in found.judges:
        for note in judge.notes:
            print(f"note: {note}")
    for path in found.kept:
        print(f"kept: {path}, which had been edited")
    flagged = sum(bool(case.flags) for case in found.cases)
    print(f"quality: {count_of(len(found.cases), 'case')}, {flagged} flagged for review: {found.page}")


def _processes(given: int | None, variable: str) -> int | None:
    if given is not None:
        return given
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else None
