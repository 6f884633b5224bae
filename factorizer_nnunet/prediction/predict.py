"""Predict the cases of a folder: everything is checked first, then each case appears complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import SimpleITK
import torch

from factorizer_nnunet import __version__
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Stamp, stamp_of_value
from factorizer_nnunet.core.memory import free_memory
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.nnunet.absent_channels import advice_for
from factorizer_nnunet.nnunet.dataset_json import REGIONS_ORDER_KEY
from factorizer_nnunet.nnunet.image_files import ImageCase, find_cases, passed_over
from factorizer_nnunet.nnunet.model_folder import RULES_KEY
from factorizer_nnunet.nnunet.prediction_record import image_stamps, record_prediction, recorded_warnings
from factorizer_nnunet.postprocessing import LEAVE_OUT
from factorizer_nnunet.prediction.case_states import CaseState, State, state_of
from factorizer_nnunet.prediction.channel_names import check_channel_names
from factorizer_nnunet.prediction.claims import Claims
from factorizer_nnunet.prediction.devices import chosen_device, worker_count
from factorizer_nnunet.prediction.image_reading import channels_by, readable_by
from factorizer_nnunet.prediction.memory import RESERVE, MemoryLimit, case_memory, processes_within, together
from factorizer_nnunet.prediction.model import TrainedModel, load_model, with_postprocessing
from factorizer_nnunet.prediction.outputs import DECISIVE, Outputs
from factorizer_nnunet.prediction.pipeline import Member, Pipeline, PredictionOutcome, reason_of
from factorizer_nnunet.prediction.request import PredictionRequest
from factorizer_nnunet.prediction.sliding_window import EMPTY_LOGIT, TileOptions


def predict(request: PredictionRequest) -> PredictionOutcome:
    """Predict all cases that are not complete yet; a case that fails does not stop the others.

    Raises:
        UserError: model, images or output folder cannot be used (nothing has been written), or the disk is full.
    """
    request.check()
    device = chosen_device(request.device)
    models = _models(request)
    model = models[0]
    check_channel_names(request.images, model.folder, model.dataset, from_elsewhere=model.is_exported)
    every_case = _cases(request, models)
    cases = every_case[request.part_id :: request.num_parts]
    settings = _settings(request, models)
    outputs = Outputs(
        request.out,
        model.file_ending,
        request.save_probabilities,
        _stamp(settings, models),
        passes=request.quality,
        scalings=request.scalings if request.uncertainty else None,
        regions=model.description.output_names,
    )
    outputs.check_folder(every_case)
    readable = readable_by(model.plans)
    states = {case.name: state_of(case, outputs, readable) for case in cases}
    claims = Claims(request.out)
    if any(state.is_kept or claims.is_taken(case) for case, state in states.items()):
        outputs.check_origin(settings, model.plans.plans)
    outputs.check_maps()
    _check_unrecorded(request, states)
    left = [case for case in cases if states[case.name].is_left]
    outputs.check_space(left, model.description.labels.num_segmentation_heads)
    outputs.prepare(settings, model.dataset.content, model.plans.plans)
    outcome = PredictionOutcome(
        passed_over=[path.name for path in passed_over(request.images, every_case)],
        postprocessing=model.description.postprocessing,
    )
    for case in cases:
        _note_existing(case, states[case.name], outputs, outcome)
    if left:
        _pipeline(request, models, left, outputs, outcome, device).run(left)
    return outcome


def _models(request: PredictionRequest) -> list[TrainedModel]:
    """The model and those that it is averaged with.

    Raises:
        UserError: one cannot be used, or they cannot be averaged.
    """
    models = [
        load_model(folder, request.folds_of(folder), request.checkpoint, request.trusted, request.inference_settings)
        for folder in (request.model, *request.ensemble_with)
    ]
    for other in models[1:]:
        _check_alike(models[0], other)
    if request.postprocessing and len(models) == 1:  # rules say nothing about a mean of several models
        models = [with_postprocessing(models[0])]
        _check_thresholds(request, models[0])
    return models


def _pipeline(
    request: PredictionRequest,
    models: Sequence[TrainedModel],
    cases: Sequence[ImageCase],
    outputs: Outputs,
    outcome: PredictionOutcome,
    device: torch.device,
) -> Pipeline:
    """What predicts these cases within the memory there is."""
    members = [
        Member(
            one.description,
            one.predictor(
                device,
                tile_step_size=_step(request, one),
                use_mirroring=request.use_mirroring,
                on_device=request.on_device,
            ),
        )
        for one in models
    ]
    size = int(free_memory() * (1 - RESERVE) if request.memory is None else request.memory * 1e9)
    limit = MemoryLimit(size, device.type == "cuda" and request.on_device, request.sums_on_disk is not None)
    readers, writers = _processes(request, models, cases, limit)
    return Pipeline(
        members,
        outputs,
        outcome,
        num_readers=readers,
        num_writers=writers,
        memory=None if request.memory is None else limit,  # an estimate alone should not refuse a case
        progress_bar=request.progress_bar,
        tiles=TileOptions(request.skip_empty_tiles, request.sums_on_disk),
        verbose=request.verbose,
    )


def _check_thresholds(request: PredictionRequest, model: TrainedModel) -> None:
    """Check that no threshold lies below the probability that skipped tiles get.

    Raises:
        UserError: one does.
    """
    rules = model.description.postprocessing
    background = EMPTY_LOGIT * (1 if model.description.labels.has_regions else 2)  # how far it is above other classes
    if rules is not None and request.skip_empty_tiles and max(rules.offsets()) >= background:
        raise UserError(
            f"--skip-empty-tiles gives parts of the image a probability above a threshold of {model.folder}: leave it "
            f"out, or postprocess nothing with {LEAVE_OUT}"
        )


def _processes(
    request: PredictionRequest, models: Sequence[TrainedModel], cases: Sequence[ImageCase], limit: MemoryLimit
) -> tuple[int, int]:
    """The numbers of processes for which the largest case leaves memory, by the size of its file."""
    chosen = worker_count(request.device)
    readers, writers = request.preprocessing_processes, request.export_processes
    wanted = chosen if readers is None else readers, chosen if writers is None else writers
    largest = max(cases, key=lambda case: case.files[0].stat().st_size)
    if not largest.files[0].is_file():  # of a folder, SimpleITK prints a page
        return wanted
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(largest.files[0]))
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # a format that SimpleITK does not know, or a damaged file, which will be reported
        return wanted
    size, spacing = ([*values[2::-1]] for values in (reader.GetSize(), reader.GetSpacing()))
    if len(size) < 3:
        return wanted
    size, spacing = ([values[axis] for axis in models[0].plans.transpose_forward] for values in (size, spacing))
    logits, watched = request.save_probabilities or request.uncertainty, request.quality or request.uncertainty
    needed = together(
        [
            case_memory(size, spacing, one.description, logits, limit, _compared(request, one) if watched else 0)
            for one in models
        ]
    )
    return processes_within(needed, limit.size, *wanted)


def _compared(request: PredictionRequest, model: TrainedModel) -> int:
    """How many label maps are compared: those of the folds, or of the passes of a single one."""
    axes = model.first.mirroring_axes or () if request.use_mirroring else ()
    return len(model.folds) if len(model.folds) > 1 else 2 ** len(axes)


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
        if warnings := recorded_warnings(outputs.folder, case.name):
            outcome.warnings[case.name] = "; ".join(warnings)
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


def _check_alike(model: TrainedModel, other: TrainedModel) -> None:
    """Check that probabilities of two models can be averaged.

    Raises:
        UserError: they predict other labels, or take other images.
    """
    for what, of_model, of_other in (
        ("labels", model.dataset.labels, other.dataset.labels),
        ("regions_class_order", *(one.dataset.content.get(REGIONS_ORDER_KEY) for one in (model, other))),
        ("channels", model.dataset.channel_names, other.dataset.channel_names),
        ("file ending", model.file_ending, other.file_ending),
        ("image reader", *(one.plans.image_reader_writer_class for one in (model, other))),
        ("order of axes", *(list(one.plans.transpose_forward) for one in (model, other))),
    ):
        if of_model != of_other:
            raise UserError(
                f"{model.folder} and {other.folder} differ in {what} ({of_model}, {of_other}), so they cannot be "
                "averaged. Name models of one data set"
            )


def _cases(request: PredictionRequest, models: Sequence[TrainedModel]) -> list[ImageCase]:
    stages = [(model, model.configuration.previous_stage_name) for model in models]
    cascades = [(model, stage) for model, stage in stages if stage is not None]
    if not cascades and request.previous_stages:
        raise UserError(f"{models[0].first.configuration} has no previous stage: leave out -prev_stage_predictions")
    if len(cascades) > len(request.previous_stages):
        model, stage = cascades[len(request.previous_stages)]
        raise UserError(
            f"{model.first.configuration} continues {stage}: predict with that first, without --save_probabilities, "
            "and name its output with -prev_stage_predictions"
        )
    if len(cascades) < len(request.previous_stages):
        raise UserError(
            f"-prev_stage_predictions names {len(request.previous_stages)} folders for {len(cascades)} cascades"
        )
    model = models[0]
    strict = next((one for one in models if not one.description.takes_absent), None)
    return find_cases(
        request.images,
        model.file_ending,
        model.num_channels,
        channels_by(model.plans),
        request.previous_stages,
        model.dataset.path,
        lack_advice=None if strict is None else advice_for(strict.first.trainer_name),
    )


def _step(request: PredictionRequest, model: TrainedModel) -> float:
    return model.tile_step_size if request.tile_step_size is None else request.tile_step_size


def _settings(request: PredictionRequest, models: Sequence[TrainedModel]) -> dict[str, Any]:
    """What the predictions were made with, for the record and for a later run."""
    first, *others = (_settings_of(request, model) for model in models)
    decisive = [{key: value for key, value in other.items() if key in DECISIVE} for other in others]
    previous = [str(folder.absolute()) for folder in request.previous_stages]
    rules = models[0].description.postprocessing
    return {
        "factorizer_nnunet": __version__,
        **first,
        **({"ensemble_models": [str(model.folder.absolute()) for model in models[1:]]} if others else {}),
        **({"ensemble_with": decisive} if others else {}),  # unknown to older records, as is the next one
        **({"skip_empty_tiles": True} if request.skip_empty_tiles else {}),
        **({} if rules is None else {RULES_KEY: rules.content()}),
        "images": str(request.images.absolute()),
        "previous_stage": previous[0] if len(previous) == 1 else previous or None,
        "save_probabilities": request.save_probabilities,
    }


def _settings_of(request: PredictionRequest, model: TrainedModel) -> dict[str, Any]:
    return {
        "model": str(model.folder.absolute()),
        "trainer": model.first.trainer_name,
        "plans": model.plans.plans_name,
        "configuration": model.first.configuration,
        "checkpoint_name": request.checkpoint,
        "checkpoints": {fold: checkpoint.digest for fold, checkpoint in model.folds.items()},
        "tile_step_size": _step(request, model),
        "use_mirroring": request.use_mirroring,
        "num_iters": model.inference_settings.num_iters,  # None: as the plans say
        "num_shifts": model.inference_settings.num_shifts,
    }


def _stamp(settings: Mapping[str, Any], models: Sequence[TrainedModel]) -> Stamp:
    """The stamp of all that decides what is predicted from an image."""
    decisive = {key: settings[key] for key in DECISIVE if key in settings}
    plans = [model.plans.plans for model in models]
    own = {"plans": plans[0] if len(plans) == 1 else plans, "dataset": models[0].dataset.content}
    return stamp_of_value({**decisive, **own})
