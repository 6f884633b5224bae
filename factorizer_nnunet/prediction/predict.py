"""Predict the cases of a folder: everything is checked first, then each case appears complete."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from factorizer_nnunet import __version__
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Stamp, stamp_of_value
from factorizer_nnunet.core.memory import free_memory
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.nnunet.image_files import ImageCase, find_cases, passed_over
from factorizer_nnunet.nnunet.inference_settings import InferenceSettings, is_tile_step
from factorizer_nnunet.nnunet.model_folder import ALL_CASES, CHECKPOINT_FINAL
from factorizer_nnunet.nnunet.prediction_record import image_stamps, record_prediction
from factorizer_nnunet.prediction.case_states import CaseState, State, state_of
from factorizer_nnunet.prediction.claims import Claims
from factorizer_nnunet.prediction.description import ModelDescription
from factorizer_nnunet.prediction.devices import chosen_device, worker_count
from factorizer_nnunet.prediction.memory import RESERVE, MemoryLimit, case_memory, processes_within
from factorizer_nnunet.prediction.model import TrainedModel, load_model
from factorizer_nnunet.prediction.outputs import DECISIVE, Outputs
from factorizer_nnunet.prediction.pipeline import Pipeline, PredictionOutcome, reason_of
from factorizer_nnunet.prediction.work import channels_by, readable_by


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
        preprocessing_processes, export_processes: number of worker processes; with 0, this process does the work; None:
            by the device and the number of cores.
        previous_stage: folder with the previous stage's predictions, in a cascade.
        trusted: whether code in checkpoints may be executed.
        inference_settings: iterations and shifts of a Factorizer.
        progress_bar: whether to show one.
        num_parts, part_id: predict every ``num_parts``-th case, starting with number ``part_id``.
        continue_prediction: take segmentations without a record of their images as complete.
        memory: GB that all processes may take together; None: what is free, less a reserve.
        skip_empty_tiles: tiles without any contrast are background without asking the network.
        verbose: print the time of each stage of a case.
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
    preprocessing_processes: int | None = None
    export_processes: int | None = None
    previous_stage: Path | None = None
    trusted: bool = False
    inference_settings: InferenceSettings = InferenceSettings()
    progress_bar: bool = True
    num_parts: int = 1
    part_id: int = 0
    continue_prediction: bool = False
    memory: float | None = None
    skip_empty_tiles: bool = False
    verbose: bool = False


def predict(request: PredictionRequest) -> PredictionOutcome:
    """Predict all cases that are not complete yet; a case that fails does not stop the others.

    Raises:
        UserError: model, images or output folder cannot be used (nothing has been written), or the disk is full.
    """
    _check_options(request)
    device = chosen_device(request.device)
    model = load_model(request.model, request.folds, request.checkpoint, request.trusted, request.inference_settings)
    step = model.tile_step_size if request.tile_step_size is None else request.tile_step_size
    every_case = _cases(request, model)
    cases = every_case[request.part_id :: request.num_parts]
    settings = _settings(request, model, step)
    outputs = Outputs(request.out, model.file_ending, request.save_probabilities, _stamp(settings, model))
    outputs.check_folder(every_case)
    readable = readable_by(model.plans)
    states = {case.name: state_of(case, outputs, readable) for case in cases}
    claims = Claims(request.out)
    if any(state.is_kept or claims.is_taken(case) for case, state in states.items()):
        outputs.check_origin(settings, model.plans.plans)
    _check_unrecorded(request, states)
    left = [case for case in cases if states[case.name].is_left]
    outputs.check_space(left, model.description.labels.num_segmentation_heads)
    outputs.prepare(settings, model.dataset.content, model.plans.plans)
    outcome = PredictionOutcome(passed_over=[path.name for path in passed_over(request.images, every_case)])
    for case in cases:
        _note_existing(case, states[case.name], outputs, outcome)
    if left:
        predictor: nnUNetPredictor = model.predictor(
            device,
            tile_step_size=step,
            use_mirroring=request.use_mirroring,
            on_device=request.on_device,
        )
        size = int(free_memory() * (1 - RESERVE) if request.memory is None else request.memory * 1e9)
        limit = MemoryLimit(size, device.type == "cuda" and request.on_device)
        readers, writers = _processes(request, model.description, left, limit)
        Pipeline(
            model.description,
            predictor,
            outputs,
            outcome,
            num_readers=readers,
            num_writers=writers,
            memory=None if request.memory is None else limit,  # an estimate alone should not refuse a case
            progress_bar=request.progress_bar,
            skip_empty_tiles=request.skip_empty_tiles,
            verbose=request.verbose,
        ).run(left)
    return outcome


def _processes(
    request: PredictionRequest, model: ModelDescription, cases: Sequence[ImageCase], limit: MemoryLimit
) -> tuple[int, int]:
    """The numbers of processes for which the largest case leaves memory, by the size of its file."""
    chosen = worker_count(request.device)
    readers, writers = request.preprocessing_processes, request.export_processes
    wanted = chosen if readers is None else readers, chosen if writers is None else writers
    largest = max(cases, key=lambda case: case.files[0].stat().st_size)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(largest.files[0]))
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # a format that SimpleITK does not know, or a damaged file, which will be reported
        return wanted
    size, spacing = ([*values[2::-1]] for values in (reader.GetSize(), reader.GetSpacing()))
    if len(size) < 3:
        return wanted
    size, spacing = ([values[axis] for axis in model.plans.transpose_forward] for values in (size, spacing))
    needed = case_memory(size, spacing, model, request.save_probabilities, limit.on_gpu)
    return processes_within(needed, limit.size, *wanted)


def _check_unrecorded(request: PredictionRequest, states: Mapping[str, CaseState]) -> None:
    names = [case for case, state in states.items() if state.state is State.UNRECORDED]
    if names and not request.continue_prediction:
        raise UserError(
            f"{request.out} has segmentations without a record of the images that they were predicted from "
            f"({first_few(names)}), as nnUNetv2_predict and earlier versions write them. --continue_prediction takes "
            "them as complete; otherwise name an empty folder with -o"
        )


def _note_existing(case: ImageCase, found: CaseState, outputs: Outputs, outcome: PredictionOutcome) -> None:
    """Say what becomes of a case that is not predicted now; segmentations of nnU-Net get a record."""
    if found.state is State.CURRENT:
        outcome.skipped.append(case.name)
    elif found.state is State.UNRECORDED:
        try:
            existing = [file for file in outputs.files(case.name) if file.is_file()]
            record_prediction(outputs.folder, case.name, image_stamps(case), outputs.model, existing)
        except OSError as error:
            outcome.failed[case.name] = reason_of(error)
        else:
            outcome.skipped.append(case.name)
    elif found.state is State.UNREADABLE:
        outcome.failed[case.name] = found.reason
    elif found.state is State.EDITED and found.images_changed:
        outcome.failed[case.name] = (
            f"{found.reason}, and the images are others than it was predicted from: move it away to predict them"
        )
    elif found.state is State.EDITED:
        outcome.kept[case.name] = f"{found.reason}; to predict the case again, move it away"


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
        **({"skip_empty_tiles": True} if request.skip_empty_tiles else {}),  # unknown to older records
        "images": str(request.images.absolute()),
        "previous_stage": request.previous_stage and str(request.previous_stage.absolute()),
        "save_probabilities": request.save_probabilities,
    }


def _stamp(settings: Mapping[str, Any], model: TrainedModel) -> Stamp:
    """The stamp of all that decides what is predicted from an image."""
    decisive = {key: settings[key] for key in DECISIVE if key in settings}
    return stamp_of_value({**decisive, "plans": model.plans.plans, "dataset": model.dataset.content})


def _check_options(request: PredictionRequest) -> None:
    if request.tile_step_size is not None and not is_tile_step(request.tile_step_size):
        raise UserError(f"-step_size {request.tile_step_size} must be above 0 and at most 1; nnU-Net's is 0.5")
    if min(request.preprocessing_processes or 0, request.export_processes or 0) < 0:
        raise UserError("-npp and -nps must be 0 or more")
    if request.memory is not None and not (math.isfinite(request.memory) and request.memory > 0):
        raise UserError(f"--memory {request.memory:g} must be above 0, in GB")
    if not 0 <= request.part_id < request.num_parts:
        raise UserError(
            f"-part_id {request.part_id} and -num_parts {request.num_parts}: parts are counted from 0 to -num_parts - 1"
        )
    if not request.folds or len(set(request.folds)) < len(request.folds):
        raise UserError(f"-f {' '.join(request.folds)}: name each fold once")
    wrong = [fold for fold in request.folds if fold != ALL_CASES and not fold.isdecimal()]
    if wrong:
        raise UserError(f"-f {wrong[0]}: a fold is a number, or all")
