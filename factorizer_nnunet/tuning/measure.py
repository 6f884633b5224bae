"""Predict validation cases with every setting in turn and keep the results as they come.

The settings take turns case by case, so that a machine that is busy for a while slows all of them down. Each result is
one line of a file; an interruption only loses the prediction that was running.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tqdm import tqdm

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.inference_settings import InferenceSettings
from factorizer_nnunet.prediction.model import TrainedModel
from factorizer_nnunet.prediction.sliding_window import check_logits
from factorizer_nnunet.tuning.cases import ValidationCase, ValidationCases
from factorizer_nnunet.tuning.search_space import PredictionSettings


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One case predicted with one setting."""

    fold: str  # whose weights predicted, and whose validation case it is
    checkpoint: str  # SHA-256 of the file with the weights: measurements are outdated once a fold is trained further
    case: str
    data: str  # version of the case: measurements are outdated once its label or image is another
    setting: PredictionSettings
    seconds: float  # of the sliding window: network, mirroring and blending
    rest_seconds: float  # of resampling to the image's grid, which does not depend on the settings
    dice: dict[str, float | None]  # by region; None if it is in neither reference nor prediction

    @property
    def key(self) -> tuple[str, str, str, PredictionSettings]:
        return self.checkpoint, self.case, self.data, self.setting


class Log:
    """Measurements in a file, one per line, after a first line that says what was measured.

    Args:
        file: to be read and appended to.
        identity: of model and machine; measurements of others are not mixed with these.

    Raises:
        UserError: the file contains measurements of something else.
    """

    def __init__(self, file: Path, identity: Mapping[str, Any]) -> None:
        self.file = file
        self.identity = json.loads(json.dumps(identity))
        self.measurements = self._read() if file.exists() else []

    def _read(self) -> list[Measurement]:
        first, *lines = self.file.read_text(encoding="utf-8").splitlines() or [""]
        before = _parsed(first)
        if before != self.identity:
            known = before if isinstance(before, dict) else {}
            different = sorted(key for key in {*known, *self.identity} if known.get(key) != self.identity.get(key))
            raise UserError(
                f"{self.file} contains measurements of another model or machine ({', '.join(different)} differ). "
                "Name another folder with --report, or remove it"
            )
        entries = [_parsed(line) for line in lines]  # a kill may cut off the last line
        # Earlier versions did not write which data they measured.
        return [_measurement(entry) for entry in entries if entry is not None and "data" in entry]

    def begin(self) -> None:
        """Rewrite the file without a line that was cut off, ready to be appended to."""
        lines = [self.identity, *(asdict(measurement) for measurement in self.measurements)]
        write_text_atomically(self.file, "".join(json.dumps(line) + "\n" for line in lines))

    def add(self, measurement: Measurement) -> None:
        """Add one measurement.

        Raises:
            UserError: it cannot be written.
        """
        self.measurements.append(measurement)
        try:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(measurement)) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write {self.file}: {error.strerror}. Earlier measurements are kept: free some space, then run "
                "the same command again"
            ) from error


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _measurement(entry: Mapping[str, Any]) -> Measurement:
    setting = PredictionSettings(**{**entry["setting"], "mirroring": tuple(entry["setting"]["mirroring"])})
    return Measurement(**{**entry, "setting": setting})


def measure(
    model: TrainedModel,
    cases: ValidationCases,
    versions: Mapping[str, Mapping[str, str]],
    settings: Sequence[PredictionSettings],
    device: torch.device,
    log: Log,
    progress_bar: bool,
) -> None:
    """Predict every case with every setting that is not in the log yet.

    Args:
        versions: the version of each validation case, by fold; for the others see ``tune``.
    """
    done = {measurement.key for measurement in log.measurements}
    digests = {fold: checkpoint.digest for fold, checkpoint in model.folds.items()}
    wanted = [
        (digests[fold], case, version, setting)
        for fold, own in versions.items()
        for case, version in own.items()
        for setting in settings
    ]
    missing = set(wanted) - done
    log.begin()
    if not missing:
        return
    predictor = model.predictor(
        device, tile_step_size=1.0, use_mirroring=True, on_device=True, predictor_class=nnUNetPredictor
    )
    _warm_up(model, predictor, settings)
    hidden = None if progress_bar else True
    with tqdm(total=len(wanted), initial=len(wanted) - len(missing), desc="measuring", disable=hidden) as bar:
        for fold, checkpoint in model.folds.items():
            predictor.list_of_parameters = [checkpoint.weights]
            for number, (case, version) in enumerate(versions[fold].items()):
                start = number % len(settings)
                # Each setting comes first for some cases: the first prediction of a case fills caches for the others.
                order = (*settings[start:], *settings[:start])
                turns = [setting for setting in order if (checkpoint.digest, case, version, setting) in missing]
                if not turns:
                    continue
                loaded = cases.load(case)
                for setting in turns:
                    timed = _measured(model, predictor, setting, cases, loaded)
                    log.add(
                        Measurement(
                            fold=fold, checkpoint=checkpoint.digest, case=case, data=version, setting=setting, **timed
                        )
                    )
                    bar.update()


def _measured(
    model: TrainedModel,
    predictor: nnUNetPredictor,
    setting: PredictionSettings,
    cases: ValidationCases,
    case: ValidationCase,
) -> dict[str, Any]:
    """What a measurement says of one prediction: its times and Dice."""
    begin = time.perf_counter()
    logits = _predicted(model, predictor, setting, case.data)
    middle = time.perf_counter()
    segmentation = cases.segmentation(logits, case)
    end = time.perf_counter()
    return {"seconds": middle - begin, "rest_seconds": end - middle, "dice": cases.dice(segmentation, case)}


def _predicted(
    model: TrainedModel, predictor: nnUNetPredictor, setting: PredictionSettings, data: torch.Tensor
) -> torch.Tensor:
    """Logits of nnU-Net's predictor, on the CPU: once they are there, a GPU has finished, too."""
    network_settings = InferenceSettings(num_iters=setting.num_iters, num_shifts=setting.num_shifts)
    network_settings.apply(model.network, str(model.folder))
    predictor.tile_step_size = setting.tile_step_size
    predictor.allowed_mirroring_axes = setting.mirroring or None
    return check_logits(predictor.predict_logits_from_preprocessed_data(data))


def _warm_up(model: TrainedModel, predictor: nnUNetPredictor, settings: Sequence[PredictionSettings]) -> None:
    """Predict one patch with each network setting: the first one pays for memory allocation and kernel selection."""
    patch = model.configuration.patch_size
    empty = torch.zeros(model.description.num_input_channels, *[1] * (3 - len(patch)), *patch)
    for setting in {(setting.num_iters, setting.num_shifts): setting for setting in settings}.values():
        _predicted(model, predictor, setting, empty)
