"""Explain cases: check all of them first, then explain one after the other and write each atomically."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from factorizer_nnunet import __version__
from factorizer_nnunet.core.atomic_files import atomic_folder, clear_drafts, write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Stamp, stamp_of, stamp_of_value
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.core.set_aside import OUTDATED, set_aside
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.explain.components import Component
from factorizer_nnunet.explain.explainer import Explainer, ExplainOptions, build_explainer
from factorizer_nnunet.explain.geometry import Volume
from factorizer_nnunet.explain.inputs import cases_from, check_images, check_truths
from factorizer_nnunet.explain.outputs import LOADINGS, map_file, write_description, write_map
from factorizer_nnunet.explain.page import write_page
from factorizer_nnunet.explain.panels import write_panels
from factorizer_nnunet.explain.shown import Shown
from factorizer_nnunet.explain.threads import in_threads
from factorizer_nnunet.nnunet.image_files import ImageCase, passed_over
from factorizer_nnunet.nnunet.inference_settings import is_tile_step
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL
from factorizer_nnunet.nnunet.model_name import short_trainer
from factorizer_nnunet.nnunet.prediction_record import compare, image_stamps, record_prediction
from factorizer_nnunet.pages.limits import ViewerLimits
from factorizer_nnunet.prediction.channel_names import check_channel_names
from factorizer_nnunet.prediction.devices import chosen_device
from factorizer_nnunet.prediction.model import load_model
from factorizer_nnunet.prediction.outputs import check_folder
from factorizer_nnunet.prediction.pipeline import reason_of

FORMATS = ("nifti", "png", "html")
SETTINGS_FILE = "explain.json"
# May differ between a run and its continuation: where the model is, and our version.
_MAY_DIFFER = ("factorizer_nnunet", "model")


@dataclass(frozen=True, kw_only=True)
class ExplainRequest(ExplainOptions):
    """What to explain, with which model, and where to write."""

    model: Path  # TRAINER__PLANS__CONFIGURATION
    images: tuple[Path, ...]  # a folder with CASE_0000.ENDING, …, or all channels of one case, in order
    out: Path  # gets one folder per case
    fold: str = "0"  # a number, or all
    truths: Path | None = None  # folder with true segmentations CASE.ENDING
    formats: tuple[str, ...] = FORMATS
    top: int = 3  # how many components of each class and layer page and panels show
    checkpoint: str = CHECKPOINT_FINAL
    viewer_mb: float = ViewerLimits.mb  # of the volumes stored in a page
    device: str = "cuda"
    trusted: bool = False
    progress_bar: bool = True


@dataclass(frozen=True)
class ExplainOutcome:
    """Names of cases: explained now, skipped because complete, failed with the reason.

    ``warnings`` say what was unusual in the images of explained cases, by name; ``set_aside`` are old folders that were
    renamed, since they explain other images; ``passed_over`` are names of files and folders next to the images that are
    not images of the cases.
    """

    explained: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    set_aside: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def explain(request: ExplainRequest) -> ExplainOutcome:
    """Explain the cases that are not complete yet; a case that fails does not stop the others.

    Raises:
        UserError: model, stage, head, images, truths or output folder cannot be used; nothing has been written.
    """
    _check_options(request)
    device = chosen_device(request.device)
    model = load_model(request.model, [request.fold], request.checkpoint, request.trusted)
    explainer = build_explainer(model, device, request)
    check_channel_names(request.images[0], model.folder, model.dataset, from_elsewhere=model.is_exported)
    cases = cases_from(request.images, model)
    settings = _settings(request, explainer)
    missing = _missing(request, cases, settings, model.file_ending)
    check_images(missing, model)
    truths = check_truths(missing, request.truths, model)
    folder = request.images[0]
    others = [path.name for path in passed_over(folder, cases)] if folder.is_dir() else []
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {request.out}: {error.strerror}. Name another folder with -o") from error
    busy = f"another explain is writing {request.out}; wait until it ends, or name another folder with -o"
    with file_lock(request.out / ".lock", busy):
        clear_drafts(request.out)
        write_text_atomically(request.out / SETTINGS_FILE, json.dumps(settings, indent=1))
        skipped = [case.name for case in cases if case not in missing]
        outcome = ExplainOutcome(skipped=skipped, passed_over=others)
        bar = tqdm(missing, desc="explaining", unit="case", disable=None if request.progress_bar else True)
        for case in bar:
            bar.set_postfix_str(case.name)
            try:
                images, made_from = image_stamps(case), _made_from(truths.get(case.name))
                if (request.out / case.name).exists():  # of other images
                    outcome.set_aside.append(str(set_aside(request.out / case.name, OUTDATED)))
                record_prediction(request.out, case.name, images, made_from, [])  # first: a kill leaves no folder
                warnings = explain_into(case, truths.get(case.name), explainer, request)
            except Exception as error:  # concerns this case alone: too large for the device or the disk
                outcome.failed[case.name] = reason_of(error)
            else:
                outcome.explained.append(case.name)
                if warnings:
                    outcome.warnings[case.name] = "; ".join(warnings)
        return outcome


def explain_into(case: ImageCase, truth: Path | None, explainer: Explainer, request: ExplainRequest) -> tuple[str, ...]:
    """Explain a case and write its folder below ``request.out`` atomically; returns warnings about its image."""
    model = explainer.model
    with_maps = "nifti" in request.formats
    with_loadings = with_maps and request.with_loadings
    with atomic_folder(request.out / case.name) as folder:

        def write(component: Component, volume: Volume) -> None:
            write_map(folder / map_file(component), volume)

        explanation = explainer(case, truth, folder=folder, on_map=write if with_maps else None)
        if with_maps:
            writer = model.plans.image_reader_writer_class()
            labels = np.ascontiguousarray(np.swapaxes(explanation.prediction, -1, -3))
            writer.write_seg(labels, str(folder / f"prediction{model.file_ending}"), dict(explanation.properties))
        if with_loadings:
            components = [one.component for one in explanation.assessments]
            widest = max(len(one.mean_loading) for one in explanation.assessments)
            in_threads(
                lambda component: write_map(folder / map_file(component, LOADINGS), explanation.loadings(component)),
                components,
                widest * explanation.bytes_per_map,
            )
        if {"html", "png"} & {*request.formats}:
            shown = Shown.of(explanation, model.dataset.channel_names, model.dataset.display_channel)
            if "html" in request.formats:
                name = f"{short_trainer(model.first.trainer_name)}, fold {request.fold}"
                write_page(folder / f"{case.name}.html", explanation, request.top, shown, name, request.viewer_mb)
            if "png" in request.formats:
                write_panels(folder, explanation, request.top, shown)
        write_description(folder, explanation, with_maps, with_loadings)
        explanation.close()
    return explanation.warnings


def _check_options(request: ExplainRequest) -> None:
    ViewerLimits(1, request.viewer_mb)
    unknown = [name for name in request.formats if name not in FORMATS]
    if unknown or not request.formats:
        problem = f"unknown format {', '.join(unknown)}" if unknown else "no format given"
        raise UserError(f"--format: {problem}; choose from {', '.join(FORMATS)}, separated by commas")
    if request.fold != "all" and not request.fold.isdecimal():
        raise UserError(f"-f {request.fold}: a fold is a number, or all")
    if request.top < 1 or request.deletion < 0:
        raise UserError("--top must be at least 1, --deletion at least 0")
    if request.with_loadings and "nifti" not in request.formats:
        raise UserError("--loadings are NIfTI files: add nifti to --format, or leave out --loadings")
    if request.tile_step_size is not None and not is_tile_step(request.tile_step_size):
        raise UserError(f"-step_size {request.tile_step_size} must be above 0 and at most 1; nnU-Net's is 0.5")


def _settings(request: ExplainRequest, explainer: Explainer) -> dict[str, Any]:
    """How the explanations were made, for the record and for a later run."""
    options = asdict(request)
    for key in ("images", "out", "device", "trusted", "progress_bar", "model", "viewer_mb"):
        del options[key]
    model = explainer.model
    options["tile_step_size"] = explainer.predictor.tile_step_size
    options["truths"] = request.truths and str(request.truths.absolute())
    return {
        "factorizer_nnunet": __version__,
        "model": str(request.model.absolute()),
        "trainer": model.first.trainer_name,
        "plans": model.plans.plans_name,
        "configuration": model.first.configuration,
        "weights": model.first.digest,
        "num_iters": model.inference_settings.num_iters,  # None: as in the plans
        "num_shifts": model.inference_settings.num_shifts,
        **options,
    }


def _missing(
    request: ExplainRequest, cases: Sequence[ImageCase], settings: dict[str, Any], file_ending: str
) -> list[ImageCase]:
    """Cases that are not explained yet, or were explained by other images or truths.

    Raises:
        UserError: the folder cannot be written, or contains other explanations.
    """
    out = request.out
    check_folder(out)
    if out.resolve() in {(path if path.is_dir() else path.parent).resolve() for path in request.images}:
        raise UserError(f"{out} is the folder of the images. Name another folder with -o")
    existing = [case for case in cases if (out / case.name).exists()]
    fix = "Name another folder with -o"
    record = out / SETTINGS_FILE
    if existing and not record.is_file():
        names = first_few([case.name for case in existing])
        raise UserError(f"{out} contains {names}, but no {SETTINGS_FILE}, so explain did not write it. {fix}")
    if record.is_file():
        before, now = load_json_object(record, fix), json.loads(json.dumps(settings))
        different = [key for key in now if key not in _MAY_DIFFER and before.get(key) != now[key]]
        if different:
            raise UserError(
                f"{out} contains explanations of another model or with other settings. Different: "
                f"{', '.join(different)}. {fix}"
            )
    current, unrecorded = [], []
    for case in existing:
        truth = None if request.truths is None else request.truths / f"{case.name}{file_ending}"
        found = compare(out, case, [], _made_from(truth))
        if not found.recorded:
            unrecorded.append(case.name)
        elif not found.images and not found.model:
            current.append(case)
    if unrecorded:
        raise UserError(
            f"{out} has explanations of an earlier version, without a record of their images "
            f"({first_few(unrecorded)}). Move them away, or name another folder with -o"
        )
    return [case for case in cases if case not in current]


def _made_from(truth: Path | None) -> Stamp:
    """What else than the images an explanation depends on and ``explain.json`` does not have: the truth's content."""
    return stamp_of_value(stamp_of(truth).sha256 if truth is not None and truth.is_file() else None)
