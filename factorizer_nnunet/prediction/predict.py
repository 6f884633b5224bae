"""Predict the cases of a folder: everything is checked first, then each case appears complete."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tqdm import tqdm

from factorizer_nnunet import __version__
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.worker_pool import WorkerPool
from factorizer_nnunet.nnunet.image_files import ImageCase, find_cases
from factorizer_nnunet.nnunet.inference_settings import InferenceSettings, is_tile_step
from factorizer_nnunet.nnunet.model_folder import ALL_CASES, CHECKPOINT_FINAL
from factorizer_nnunet.prediction.description import ModelDescription
from factorizer_nnunet.prediction.devices import chosen_device
from factorizer_nnunet.prediction.model import TrainedModel, load_model
from factorizer_nnunet.prediction.outputs import LEAST_SPACE, Outputs, free_space
from factorizer_nnunet.prediction.work import Properties, channels_by, export, preprocess, readable_by

Image = tuple[np.ndarray, Properties]  # a preprocessed case
QUEUED_EXPORTS = 2  # in addition to those being written: a fast GPU must not fill the memory


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """What to predict, with which model, and where to write it.

    Attributes:
        model: folder ``TRAINER__PLANS__CONFIGURATION``.
        images: folder with ``CASE_0000.ENDING``, ….
        out: output folder.
        folds: numbers, or ``all``; their outputs are averaged.
        checkpoint: file name in each fold.
        device: ``cuda``, ``cpu`` or ``mps``.
        tile_step_size: of the sliding window, as a fraction of the patch, above 0 and at most 1; None: the model's.
        use_mirroring: average over mirrored images where the training mirrored.
        on_device: keep complete results on the GPU, too.
        save_probabilities: also write ``CASE.npz`` and ``CASE.pkl``, which ensembles need.
        preprocessing_processes, export_processes: number of worker processes; with 0, this process does the work.
        previous_stage: folder with the previous stage's predictions, in a cascade.
        trusted: whether code in checkpoints may be executed.
        inference_settings: iterations and shifts of a Factorizer.
        progress_bar: whether to show one.
    """

    model: Path
    images: Path
    out: Path
    folds: tuple[str, ...] = ("0", "1", "2", "3", "4")
    checkpoint: str = CHECKPOINT_FINAL
    device: str = "cuda"
    tile_step_size: float | None = None
    use_mirroring: bool = True
    on_device: bool = True
    save_probabilities: bool = False
    preprocessing_processes: int = 3
    export_processes: int = 3
    previous_stage: Path | None = None
    trusted: bool = False
    inference_settings: InferenceSettings = InferenceSettings()
    progress_bar: bool = True


@dataclass(frozen=True)
class PredictionOutcome:
    """What happened to each case.

    Attributes:
        predicted: names of the cases predicted now.
        skipped: names of those that were complete before.
        failed: reasons by name.
    """

    predicted: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def predict(request: PredictionRequest) -> PredictionOutcome:
    """Predict all cases that are not complete yet; a case that fails does not stop the others.

    Raises:
        UserError: model, images or output folder cannot be used (nothing has been written), or the disk is full.
    """
    _check_options(request)
    device = chosen_device(request.device)
    model = load_model(request.model, request.folds, request.checkpoint, request.trusted, request.inference_settings)
    step = model.tile_step_size if request.tile_step_size is None else request.tile_step_size
    cases = _cases(request, model)
    outputs = Outputs(request.out, model.file_ending, request.save_probabilities, readable_by(model.plans))
    settings = _settings(request, model, step)
    left = outputs.check(cases, settings, model.plans.plans)
    outputs.check_space(left, model.description.labels.num_segmentation_heads)
    outputs.prepare(settings, model.dataset.content, model.plans.plans)
    names = {case.name for case in left}
    outcome = PredictionOutcome(skipped=[case.name for case in cases if case.name not in names])
    if left:
        predictor: nnUNetPredictor = model.predictor(
            device, tile_step_size=step, use_mirroring=request.use_mirroring, on_device=request.on_device
        )
        _predict_cases(left, request, model.description, predictor, outcome)
    return outcome


def _predict_cases(
    cases: Sequence[ImageCase],
    request: PredictionRequest,
    model: ModelDescription,
    predictor: nnUNetPredictor,
    outcome: PredictionOutcome,
) -> None:
    """While one case goes through the network, worker processes read and write others."""
    exports: dict[Future[None], str] = {}
    bar = tqdm(total=len(cases), desc="predicting", unit="case", disable=None if request.progress_bar else True)

    def collect(most_left: int) -> None:
        while len(exports) > most_left:
            for future in wait(exports, return_when=FIRST_COMPLETED).done:
                _note(future, exports.pop(future), request.out, outcome)
                bar.update()

    num_readers, num_writers = (min(n, len(cases)) for n in (request.preprocessing_processes, request.export_processes))
    with bar, WorkerPool(num_readers) as readers, WorkerPool(num_writers) as writers:
        for case, read in _read_ahead(cases, readers, model):
            try:
                data, properties = _image(read, case, readers, model)
                logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu().numpy()
            except Exception as error:  # concerns this case only: a damaged image, or one too large for the device
                outcome.failed[case.name] = _reason(error)
                bar.update()
                continue
            written = writers.submit(
                export, case.name, logits, properties, model, request.out, request.save_probabilities
            )
            exports[written] = case.name
            collect(most_left=num_writers + QUEUED_EXPORTS if num_writers else 0)
        collect(most_left=0)


def _image(read: Future[Image], case: ImageCase, readers: WorkerPool, model: ModelDescription) -> Image:
    """The case that was read; read again if a process died, since all cases being read then are lost with it."""
    try:
        return read.result()
    except BrokenProcessPool:
        return readers.submit(preprocess, case, model).result()


def _read_ahead(
    cases: Sequence[ImageCase], readers: WorkerPool, model: ModelDescription
) -> Iterator[tuple[ImageCase, Future[Image]]]:
    """Yield each case with its future image; as many as there are processes are read in advance."""
    reading: deque[tuple[ImageCase, Future[Image]]] = deque()
    waiting = deque(cases)
    while waiting or reading:
        while waiting and len(reading) <= readers.count:
            case = waiting.popleft()
            reading.append((case, readers.submit(preprocess, case, model)))
        yield reading.popleft()


def _note(future: Future[None], name: str, folder: Path, outcome: PredictionOutcome) -> None:
    error = future.exception()
    if error is None:
        outcome.predicted.append(name)
        return
    if free_space(folder) < LEAST_SPACE:
        raise UserError(
            f"no space left for {name} in {folder} ({_reason(error)}). Existing predictions are complete: free space, "
            "then run the same command again"
        ) from error
    outcome.failed[name] = _reason(error)


def _reason(error: BaseException) -> str:
    if isinstance(error, BrokenProcessPool):
        return "a worker process died, most likely because memory ran out: lower -npp and -nps"
    text = " ".join(str(error).split())
    advice = ": try --not_on_device" if isinstance(error, torch.OutOfMemoryError) else ""
    return f"{type(error).__name__}: {text[:300]}{advice}"


def _cases(request: PredictionRequest, model: TrainedModel) -> list[ImageCase]:
    stage = model.configuration.previous_stage_name
    if stage is not None and request.previous_stage is None:
        raise UserError(
            f"{model.first.configuration} continues {stage}: predict with that first, without --save_probabilities, "
            "and name its output with -prev_stage_predictions"
        )
    if stage is None and request.previous_stage is not None:
        raise UserError(f"{model.first.configuration} has no previous stage: leave out -prev_stage_predictions")
    return find_cases(
        request.images, model.file_ending, model.num_channels, channels_by(model.plans), request.previous_stage
    )


def _settings(request: PredictionRequest, model: TrainedModel, tile_step_size: float) -> dict[str, Any]:
    """What the predictions were made with, for the record and for a later run."""
    return {
        "factorizer_nnunet": __version__,
        "model": str(request.model.absolute()),
        "trainer": model.first.trainer_name,
        "plans": model.plans.plans_name,
        "configuration": model.first.configuration,
        "checkpoint_name": request.checkpoint,
        "checkpoints": {fold: checkpoint.digest for fold, checkpoint in model.folds.items()},
        "tile_step_size": tile_step_size,
        "use_mirroring": request.use_mirroring,
        "num_iters": model.inference_settings.num_iters,  # None: as the plans say
        "num_shifts": model.inference_settings.num_shifts,
        "images": str(request.images.absolute()),
        "previous_stage": request.previous_stage and str(request.previous_stage.absolute()),
        "save_probabilities": request.save_probabilities,
    }


def _check_options(request: PredictionRequest) -> None:
    if request.tile_step_size is not None and not is_tile_step(request.tile_step_size):
        raise UserError(f"-step_size {request.tile_step_size} must be above 0 and at most 1; nnU-Net's is 0.5")
    if min(request.preprocessing_processes, request.export_processes) < 0:
        raise UserError("-npp and -nps must be 0 or more")
    if not request.folds or len(set(request.folds)) < len(request.folds):
        raise UserError(f"-f {' '.join(request.folds)}: name each fold once")
    wrong = [fold for fold in request.folds if fold != ALL_CASES and not fold.isdecimal()]
    if wrong:
        raise UserError(f"-f {wrong[0]}: a fold is a number, or all")
