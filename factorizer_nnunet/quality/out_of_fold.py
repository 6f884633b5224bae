"""Predict the validation cases of each fold with that fold alone, and keep what calibration needs of each.

Each case is one line of a file in the model folder; an interruption only loses the case in progress.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tqdm import tqdm

from factorizer_nnunet.calibration.fit import OutOfFoldCase
from factorizer_nnunet.calibration.logit_scaling import NUM_LOGITS, logit_counts
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import stamp_of_value
from factorizer_nnunet.nnunet.pass_record import content_of, records_of
from factorizer_nnunet.nnunet.tiles import num_tiles
from factorizer_nnunet.prediction.measuring import Measured, comparison_of, statistics_of
from factorizer_nnunet.prediction.model import TrainedModel
from factorizer_nnunet.prediction.probabilities import class_probabilities
from factorizer_nnunet.prediction.segmentation import Output, segmentation_of
from factorizer_nnunet.prediction.sliding_window import logit_planes
from factorizer_nnunet.tuning.cases import ValidationCase, ValidationCases

MEASUREMENTS_FILE = "quality_calibration.jsonl"  # in the model folder


@dataclass(frozen=True)
class Work:
    """Cases to predict.

    Attributes:
        model: with the folds.
        cases: where their validation cases are.
        names: of the cases of each fold.
        settings: how to predict, for the record; ``use_mirroring`` and ``tile_step_size`` among them.
    """

    model: TrainedModel
    cases: ValidationCases
    names: Mapping[str, Sequence[str]]
    settings: Mapping[str, Any]

    def key(self, fold: str, case: str) -> str:
        """What a measurement depends on."""
        parts = [self.model.folds[fold].digest, case, self.cases.version(case), dict(self.settings)]
        return stamp_of_value(parts).sha256

    def predictor(self, device: torch.device) -> nnUNetPredictor:
        """With the weights of the first fold."""
        return self.model.predictor(
            device,
            tile_step_size=self.settings["tile_step_size"],
            use_mirroring=self.settings["use_mirroring"],
            on_device=True,
        )


def known_cases(file: Path) -> dict[str, OutOfFoldCase]:
    """Measurements by key; lines that cannot be read are left out."""
    known: dict[str, OutOfFoldCase] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            entry = json.loads(line)
            known[entry["key"]] = _case(entry)
        except (AttributeError, KeyError, TypeError, ValueError):  # cut off by a kill, or of another version
            continue
    return known


def expected_seconds(work: Work, missing: Sequence[tuple[str, str]], device: torch.device) -> float:
    """About how long the predictions of these folds and cases take, from one pass over an empty tile."""
    predictor, model = work.predictor(device), work.model
    patch = list(model.configuration.patch_size)
    network = predictor.network.to(device).eval()
    tile = torch.zeros(1, model.description.num_input_channels, *patch, device=device)
    seconds = math.inf
    with torch.inference_mode(), torch.autocast("cuda", enabled=device.type == "cuda"):
        for _ in range(2):  # the first is slower
            start = time.perf_counter()
            float(network(tile).sum())
            seconds = min(seconds, time.perf_counter() - start)
    passes = 2 ** len(model.first.mirroring_axes or ()) if work.settings["use_mirroring"] else 1
    step = work.settings["tile_step_size"]
    tiles = sum(num_tiles(work.cases.shape(case), patch, step) for _, case in missing)
    return tiles * passes * seconds


def predict_missing(
    work: Work, missing: Sequence[tuple[str, str]], device: torch.device, file: Path, progress_bar: bool
) -> None:
    """Predict these folds and cases and append a line for each.

    Raises:
        UserError: a case cannot be read, or the file not written.
    """
    predictor = work.predictor(device)
    if file.exists() and not file.read_bytes().endswith(b"\n"):  # a kill has cut off the last line
        with file.open("a", encoding="utf-8") as stream:
            stream.write("\n")
    for fold, case in tqdm(missing, desc="calibrating", unit="case", disable=None if progress_bar else True):
        predictor.list_of_parameters = [work.model.folds[fold].weights]
        found = predicted(work, predictor, fold, case)
        try:
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"key": work.key(fold, case), **_entry(found)}) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write {file}: {error.strerror}. Cases before are kept: fix that, then run the same command "
                "again"
            ) from error


def predicted(work: Work, predictor: nnUNetPredictor, fold: str, name: str) -> OutOfFoldCase:
    """Predict a case with the weights that the predictor has."""
    case, model = work.cases.load(name), work.model.description
    shape = case.data.shape[1:]
    comparison = comparison_of(model, predictor, shape)
    output = Output(logit_planes(predictor, case.data, watcher=comparison), shape, case.properties, model)
    logits = torch.from_numpy(output.take_logits())
    output = replace(output, planes=logits.unbind(1))
    statistics = statistics_of(case.data.numpy(), model)
    return OutOfFoldCase(
        case=name,
        fold=fold,
        dice=work.cases.dice(segmentation_of(output), case),
        present=frozenset(
            region for region, values in model.dataset.regions.items() if np.isin(case.reference, values).any()
        ),
        record=Measured(comparison.result(), statistics, case.properties, model).record(),
        counts=_counts(output, logits, case),
    )


def _counts(output: Output, logits: torch.Tensor, case: ValidationCase) -> dict[str, np.ndarray]:
    """Voxels by their logits, for each output, on the image's grid; none where nnU-Net's resampling is replaced."""
    model, maps = output.model, output.maps
    if maps is None:
        return {name: np.zeros((2, NUM_LOGITS), np.int64) for name in model.output_names}
    regions, ignore = model.dataset.regions, model.dataset.ignore_label
    scored = np.ones(case.reference.shape, bool) if ignore is None else case.reference != ignore
    counts = {}
    probabilities = class_probabilities(logits, maps, case.properties, model)
    for name, values in zip(model.output_names, probabilities, strict=True):
        truth = np.isin(case.reference, regions.get(name, (0,)))
        counts[name] = logit_counts(values[scored], truth[scored])
    return counts


def _entry(one: OutOfFoldCase) -> dict[str, Any]:
    return {
        "case": one.case,
        "fold": one.fold,
        "dice": one.dice,
        "present": sorted(one.present),
        "passes": content_of([one.record]),
        "counts": {name: counts.tolist() for name, counts in one.counts.items()},
    }


def _case(entry: Mapping[str, Any]) -> OutOfFoldCase:
    (record,) = records_of(entry["passes"])
    return OutOfFoldCase(
        case=str(entry["case"]),
        fold=str(entry["fold"]),
        dice={str(name): None if value is None else float(value) for name, value in entry["dice"].items()},
        present=frozenset(map(str, entry["present"])),
        record=record,
        counts={str(name): np.array(counts, np.int64) for name, counts in entry["counts"].items()},
    )
