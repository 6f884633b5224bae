"""Explain the cases that are given: all checked first, then one after the other, each written whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from factorizer_nnunet import __version__
from factorizer_nnunet.core.atomic_files import atomic_folder, file_lock, write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.explain.case import Explainer, build_explainer
from factorizer_nnunet.explain.inputs import check_images, check_truths, given_cases
from factorizer_nnunet.explain.outputs import loadings_file, map_file, write_description, write_map
from factorizer_nnunet.explain.page import write_page
from factorizer_nnunet.explain.panels import write_panels
from factorizer_nnunet.explain.sites import Component
from factorizer_nnunet.explain.threads import in_threads
from factorizer_nnunet.nnunet.image_files import ImageCase
from factorizer_nnunet.nnunet.inference_settings import is_tile_step
from factorizer_nnunet.prediction.devices import chosen_device
from factorizer_nnunet.prediction.model import TrainedModel, load_model
from factorizer_nnunet.prediction.outputs import check_folder

FORMATS = ("nifti", "png", "html")
SETTINGS_FILE = "explain.json"
# What may differ between a run and its continuation: where the same model lies, and our version.
_NOT_DECISIVE = ("factorizer_nnunet", "model")


@dataclass(frozen=True, kw_only=True)
class ExplainRequest:
    """What to explain, of which model, and where to.

    Attributes:
        model: folder ``TRAINER__PLANS__CONFIGURATION``.
        images: one folder with ``CASE_0000.ENDING``, …, or the files of one case, in the order of the channels.
        out: folder that gets one folder per case.
        fold: a number, or ``all``.
        truths: folder with true segmentations ``CASE.ENDING``.
        stages, heads: which; all if empty.
        formats: some of ``FORMATS``.
        top: components of each class and stage that page and panels show.
        deletion: so many of each class and stage are tested by deletion.
        with_loadings: also keep the columns of U, in space.
        checkpoint, device, tile_step_size, use_mirroring, trusted: as in a prediction; no step: the model's.
        progress_bar: whether one is shown.
    """

    model: Path
    images: tuple[Path, ...]
    out: Path
    fold: str = "0"
    truths: Path | None = None
    stages: tuple[str, ...] = ()
    heads: tuple[int, ...] = ()
    formats: tuple[str, ...] = FORMATS
    top: int = 3
    deletion: int = 0
    with_loadings: bool = False
    checkpoint: str = "checkpoint_final.pth"
    device: str = "cuda"
    tile_step_size: float | None = None
    use_mirroring: bool = True
    trusted: bool = False
    progress_bar: bool = True


@dataclass(frozen=True)
class Outcome:
    """Names of cases: explained now, skipped because complete, failed with the reason."""

    explained: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def explain(request: ExplainRequest) -> Outcome:
    """Explain what is not complete yet; a case that fails does not stop the others.

    Raises:
        UserError: model, stage, head, images, truths or output folder cannot be used; nothing has been written.
    """
    _check_options(request)
    device = chosen_device(request.device)
    model = load_model(request.model, [request.fold], request.checkpoint, request.trusted)
    explainer = build_explainer(
        model,
        device,
        stages=request.stages,
        heads=request.heads,
        with_loadings=request.with_loadings,
        deletion=request.deletion,
        tile_step_size=request.tile_step_size,
        use_mirroring=request.use_mirroring,
    )
    cases = given_cases(request.images, model)
    settings = _settings(request, explainer)
    left = _left(request.out, cases, settings)
    check_images(left, model)
    truths = check_truths(left, request.truths, model)
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {request.out}: {error.strerror}. Name another folder with -o") from error
    with file_lock(
        request.out / ".lock", f"another explain is writing {request.out}; wait for its end, or name another -o"
    ):
        for draft in request.out.glob(".*.partial"):  # of a run that was killed
            shutil.rmtree(draft) if draft.is_dir() else draft.unlink()
        write_text_atomically(request.out / SETTINGS_FILE, json.dumps(settings, indent=1))
        outcome = Outcome(skipped=[case.name for case in cases if case not in left])
        bar = tqdm(left, desc="explaining", unit="case", disable=None if request.progress_bar else True)
        for case in bar:
            bar.set_postfix_str(case.name)
            try:
                explain_into(case, truths.get(case.name), explainer, request)
            except Exception as error:  # of this case alone: too large for the device or the disk
                outcome.failed[case.name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            else:
                outcome.explained.append(case.name)
        return outcome


def explain_into(case: ImageCase, truth: Path | None, explainer: Explainer, request: ExplainRequest) -> None:
    """Explain a case and write its folder below ``request.out``, whole or not at all."""
    model = explainer.model
    with atomic_folder(request.out / case.name) as folder:
        prepared = explainer.predict(case, truth, folder)
        grid = prepared.space.grid

        def write(component: Component, values: np.ndarray) -> None:
            write_map(folder / map_file(component), values, grid)

        def write_loadings(component: Component) -> None:
            write_map(folder / loadings_file(component), explanation.loadings(component).values, grid)

        with_maps = "nifti" in request.formats
        explanation = explainer.assess(prepared, write if with_maps else None)
        with_loadings = with_maps and request.with_loadings
        if with_maps:
            writer = model.plans.image_reader_writer_class()
            labels = np.ascontiguousarray(np.swapaxes(explanation.prediction, -1, -3))
            writer.write_seg(labels, str(folder / f"prediction{model.file_ending}"), dict(explanation.properties))
        if with_loadings:
            components = [one.component for one in explanation.assessments]
            widest = max(len(one.mean_loading) for one in explanation.assessments)
            in_threads(write_loadings, components, widest * explanation.bytes_of_a_map)
        if "html" in request.formats:
            write_page(folder / f"{case.name}.html", explanation, request.top, channel_names(model))
        if "png" in request.formats:
            write_panels(folder, explanation, request.top)
        write_description(folder, explanation, with_maps, with_loadings)
        explanation.close()


def channel_names(model: TrainedModel) -> list[str]:
    """Of the image, as ``dataset.json`` has them."""
    return list(model.description.get("channel_names", model.description.get("modality", {})).values())


def _check_options(request: ExplainRequest) -> None:
    unknown = [name for name in request.formats if name not in FORMATS]
    if unknown or not request.formats:
        raise UserError(f"--format {','.join(unknown) or 'is empty'}: choose from {', '.join(FORMATS)}, with commas")
    if request.fold != "all" and not request.fold.isdecimal():
        raise UserError(f"-f {request.fold}: a fold is a number, or all")
    if request.top < 1 or request.deletion < 0:
        raise UserError("--top must be 1 or more, --deletion 0 or more")
    if request.with_loadings and "nifti" not in request.formats:
        raise UserError("--loadings are NIfTI files: add nifti to --format, or leave out --loadings")
    if request.tile_step_size is not None and not is_tile_step(request.tile_step_size):
        raise UserError(f"-step_size {request.tile_step_size} must be above 0 and at most 1; nnU-Net's is 0.5")


def _settings(request: ExplainRequest, explainer: Explainer) -> dict[str, Any]:
    """What the explanations were made by, for the record and for a later run."""
    chosen = asdict(request)
    for key in ("images", "out", "device", "trusted", "progress_bar", "model"):
        del chosen[key]
    model = explainer.model
    chosen["tile_step_size"] = explainer.predictor.tile_step_size
    chosen["truths"] = request.truths and str(request.truths.absolute())
    return {
        "factorizer_nnunet": __version__,
        "model": str(request.model.absolute()),
        "trainer": model.first.trainer_name,
        "plans": model.plans.plans_name,
        "configuration": model.first.configuration,
        "weights": model.first.digest,
        "num_iters": model.inference_settings.num_iters,  # None: as the plans say
        "num_shifts": model.inference_settings.num_shifts,
        **chosen,
    }


def _left(out: Path, cases: Sequence[ImageCase], settings: dict[str, Any]) -> list[ImageCase]:
    """Cases that are still to be explained.

    Raises:
        UserError: the folder cannot be written, or holds explanations of something else.
    """
    check_folder(out)
    there = [case for case in cases if (out / case.name).exists()]
    mend = "Name another folder with -o"
    record = out / SETTINGS_FILE
    if there and not record.is_file():
        raise UserError(
            f"{out} has {first_few([case.name for case in there])}, but not from here: {SETTINGS_FILE} is missing. "
            f"{mend}"
        )
    if record.is_file():
        before, now = load_json_object(record, mend), json.loads(json.dumps(settings))
        different = [key for key in now if key not in _NOT_DECISIVE and before.get(key) != now[key]]
        if different:
            raise UserError(
                f"{out} holds explanations of another model or with other settings: {', '.join(different)} "
                f"differ{'s' if len(different) == 1 else ''}. {mend}"
            )
    return [case for case in cases if case not in there]
