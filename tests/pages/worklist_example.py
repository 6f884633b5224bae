"""Folders of predictions as ``predict --quality`` leaves them, without a network: records of made-up passes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from results_example import DATASET_JSON, SHAPE, Study, write_predictions, write_study, write_volume

from factorizer_nnunet.calibration.calibration_file import write_calibration
from factorizer_nnunet.calibration.fit import OutOfFoldCase, calibration_of
from factorizer_nnunet.calibration.logit_scaling import NUM_LOGITS
from factorizer_nnunet.core.file_stamps import stamp_of_value
from factorizer_nnunet.nnunet.image_files import ImageCase
from factorizer_nnunet.nnunet.pass_record import PassRecord, RegionPasses, passes_file, passes_text
from factorizer_nnunet.nnunet.prediction_record import image_stamps, record_prediction

SETTINGS = {"use_mirroring": True, "tile_step_size": 0.5, "num_iters": None, "num_shifts": None}
FOLDS = {"0": "digest 0", "1": "digest 1"}
AGREEMENT = (0.92, 0.41, 0.83, 0.64)  # of the passes of each case
LACKING = 2  # this case lacks the first channel
_STATISTICS = {"p5": -1.0, "p50": 0.0, "p95": 1.0, "noise": 0.1}


def calibrated(folder: Path) -> Path:
    """Two mirrored folds of a calibrated model on cases of two channels, one of which lacks one; with maps."""
    study = write_study(folder / "study", len(AGREEMENT))
    model = study.model("nnUNetTrainerFactorizer")
    model.mkdir(parents=True)
    write_calibration(calibration_of([_out_of_fold(number) for number in range(24)], FOLDS, SETTINGS), model)
    out = _predictions(study, model, {"checkpoints": FOLDS, **SETTINGS})
    for number, case in enumerate(study.cases):
        _write_record(out, case, record(AGREEMENT[number], 0.9 * AGREEMENT[number]), study.raw / "imagesTr")
        for name in ("entropy", "disagreement"):
            values = np.random.default_rng(number).random(SHAPE).astype(np.float32)
            write_volume(out / "uncertainty" / f"{case}_{name}.nii.gz", values)
    return out


def uncalibrated(folder: Path) -> Path:
    """One pass of one fold of a model without a calibration; a case in which no region is found; no maps."""
    study = write_study(folder / "study", 3)
    model = study.model("nnUNetTrainer")
    model.mkdir(parents=True)
    out = _predictions(study, model, {"checkpoints": {"0": "digest"}, **SETTINGS, "use_mirroring": False})
    for number, case in enumerate(study.cases):
        passes = record(math.nan, math.nan, found=number > 0, num_passes=1)
        _write_record(out, case, passes, study.raw / "imagesTr")
    return out


def record(agreement: float, folds: float, found: bool = True, num_passes: int = 8) -> PassRecord:
    """Passes that agree so much; their probabilities promise a Dice of 0.8, if anything is found."""
    region = RegionPasses(
        agreement=(agreement, agreement) if found else (math.nan,),
        confidence=(0.8,) if found else (math.nan,),
        fold_agreement=folds,
        volumes_ml=(1.25, 1.75) if found else (0.0,),
        lesions=(2, 2) if found else (0,),
    )
    regions = {"front": region, "back": region}
    return PassRecord(num_passes, (2.0, 1.0, 1.0), (24.0, 20.0, 24.0), (_STATISTICS,), regions)


def _out_of_fold(number: int) -> OutOfFoldCase:
    agreement = 0.3 + 0.65 * number / 23
    dice = {"front": 0.95 * agreement, "back": 0.95 * agreement}
    counts = dict.fromkeys(dice, np.ones((2, NUM_LOGITS), np.int64))
    fold = str(number % 2)
    return OutOfFoldCase(f"known_{number}", fold, dice, frozenset(dice), record(agreement, math.nan), counts)


def _predictions(study: Study, model: Path, settings: dict) -> Path:
    """Segmentations with nnU-Net's files, and images with a second channel."""
    out, images = study.root / "out", study.raw / "imagesTr"
    write_predictions(study, out, study.cases, 0.4)
    (out / "summary.json").unlink()
    described = {**DATASET_JSON, "channel_names": {"0": "T2", "1": "T1 </script>"}, "display_channel": 0}
    (out / "dataset.json").write_text(json.dumps(described))
    (out / "predict_from_raw_data_args.json").write_text(
        json.dumps({"model": str(model), "images": str(images), **settings})
    )
    for number, case in enumerate(study.cases):
        values = np.random.default_rng(number).normal(300, 30, SHAPE).astype(np.int16)
        write_volume(images / f"{case}_0001.nii.gz", values)
        if number == LACKING:
            (images / f"{case}_0000.nii.gz").unlink()
    return out


def _write_record(out: Path, case: str, passes: PassRecord, images: Path) -> None:
    file = passes_file(out, case)
    file.parent.mkdir(exist_ok=True)
    file.write_text(passes_text([passes]))
    files = tuple(sorted(images.glob(f"{case}_*")))
    absent = (0,) if len(files) == 1 else ()
    stamps = image_stamps(ImageCase(case, files, absent=absent))
    record_prediction(out, case, stamps, stamp_of_value("model"), [out / f"{case}.nii.gz", file])
