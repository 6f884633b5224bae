"""Predict validation cases with every setting in turn; what was measured is kept as it comes.

The settings take turns case by case, so that a machine that is busier for a while is so for all of them. Each result is
a line of a file; an interruption costs the prediction that was running.
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
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from tqdm import tqdm

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.prediction.model import TrainedModel
from factorizer_nnunet.tuning.cases import ValidationCases
from factorizer_nnunet.tuning.settings import Setting


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One case predicted with one setting.

    Attributes:
        fold: whose weights predicted, and whose validation case it is.
        checkpoint: SHA-256 of the file with the weights: those of a fold that was trained on count no more.
        seconds: of the sliding window: network, mirroring and blending.
        rest_seconds: of resampling to the image's grid, which the settings do not touch.
        dice: by region; None where it is in neither reference nor prediction.
    """

    fold: str
    checkpoint: str
    case: str
    setting: Setting
    seconds: float
    rest_seconds: float
    dice: dict[str, float | None]

    @property
    def key(self) -> tuple[str, str, Setting]:
        return self.checkpoint, self.case, self.setting


class Log:
    """Measurements in a file, one a line, after a line that says what was measured.

    Args:
        file: to be read, and to be appended to.
        identity: of model and machine; measurements of others are not mixed with these.

    Raises:
        UserError: the file holds measurements of something else.
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
                f"{self.file} holds measurements of another model or machine (other: {', '.join(different)}). "
                "Name another folder with --report, or remove it"
            )
        parsed = [_parsed(line) for line in lines]
        return [_measurement(entry) for entry in parsed if entry is not None]  # a kill may leave the last one half

    def begin(self) -> None:
        """Make the file ready to be appended to, without what a kill left half."""
        lines = [self.identity, *(asdict(measurement) for measurement in self.measurements)]
        write_text_atomically(self.file, "".join(json.dumps(line) + "\n" for line in lines))

    def add(self, measurement: Measurement) -> None:
        """Keep one more.

        Raises:
            UserError: it cannot be written.
        """
        self.measurements.append(measurement)
        try:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(measurement)) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write {self.file}: {error.strerror}. What was measured before is kept: make room, then give "
                "the same command again"
            ) from error


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _measurement(entry: Mapping[str, Any]) -> Measurement:
    setting = Setting(**{**entry["setting"], "mirroring": tuple(entry["setting"]["mirroring"])})
    return Measurement(**{**entry, "setting": setting})


def measure(
    model: TrainedModel,
    cases: ValidationCases,
    names: Mapping[str, Sequence[str]],
    settings: Sequence[Setting],
    device: torch.device,
    log: Log,
    progress_bar: bool,
) -> None:
    """Predict every case with every setting that the log does not have yet.

    Args:
        model: with the folds that are keys of ``names``.
        cases: where they are read.
        names: validation cases by fold.
        settings: ways to predict.
        device: where the network computes.
        log: which results are added to.
        progress_bar: whether one is shown.
    """
    done = {measurement.key for measurement in log.measurements}
    digests = {fold: checkpoint.digest for fold, checkpoint in model.folds.items()}
    wanted = [(digests[fold], case, setting) for fold in names for case in names[fold] for setting in settings]
    left = set(wanted) - done
    log.begin()
    if not left:
        return
    predictor = model.predictor(device, tile_step_size=1.0, use_mirroring=True, on_device=True)
    _warm_up(model, predictor, settings)
    hidden = None if progress_bar else True
    with tqdm(total=len(wanted), initial=len(wanted) - len(left), desc="measuring", disable=hidden) as bar:
        for fold, checkpoint in model.folds.items():
            predictor.list_of_parameters = [checkpoint.weights]
            for turn, case in enumerate(names[fold]):
                start = turn % len(settings)
                # Every setting is the first one of some cases: what a case brings into caches serves the next.
                turns = [s for s in (*settings[start:], *settings[:start]) if (checkpoint.digest, case, s) in left]
                image = cases.load(case) if turns else None
                for setting in turns:
                    begin = time.perf_counter()
                    logits = _predicted(model, predictor, setting, image.data)
                    middle = time.perf_counter()
                    segmentation = cases.segmentation(logits, image)
                    log.add(
                        Measurement(
                            fold=fold,
                            checkpoint=checkpoint.digest,
                            case=case,
                            setting=setting,
                            seconds=middle - begin,
                            rest_seconds=time.perf_counter() - middle,
                            dice=cases.dice(segmentation, image),
                        )
                    )
                    bar.update()


def _predicted(model: TrainedModel, predictor: nnUNetPredictor, setting: Setting, data: torch.Tensor) -> torch.Tensor:
    """Logits of nnU-Net's predictor, on the CPU: when they are there, a GPU has finished, too."""
    model.network.use(setting.num_iters, setting.num_shifts)
    predictor.tile_step_size = setting.tile_step_size
    predictor.allowed_mirroring_axes = setting.mirroring or None
    return predictor.predict_logits_from_preprocessed_data(data)


def _warm_up(model: TrainedModel, predictor: nnUNetPredictor, settings: Sequence[Setting]) -> None:
    """Compute one patch in every form of the network: the first one pays for memory and choice of kernels."""
    channels = determine_num_input_channels(model.plans, model.settings, model.description)
    patch = model.settings.patch_size
    nothing = torch.zeros(channels, *[1] * (3 - len(patch)), *patch)
    for form in {(setting.num_iters, setting.num_shifts): setting for setting in settings}.values():
        _predicted(model, predictor, form, nothing)
