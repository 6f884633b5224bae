"""Export a trained model: everything is checked, then one folder or zip appears complete."""

from __future__ import annotations

import contextlib
import json
import os
import re
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from factorizer_nnunet import __version__
from factorizer_nnunet.calibration.calibration_file import CALIBRATION_FILE
from factorizer_nnunet.core.atomic_files import atomic_file, atomic_folder, clear_drafts, draft_of, remove_draft
from factorizer_nnunet.core.disk import free_space
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import stamp_of
from factorizer_nnunet.exporting.card import OTHER_LICENSE, UNKNOWN_LICENSE, CardFacts, CardText, model_card
from factorizer_nnunet.exporting.contents import Contents, normalization_in_words, read_contents
from factorizer_nnunet.exporting.onnx_files import ONNX_FOLDER, check_onnx, write_onnx
from factorizer_nnunet.exporting.scores import lacking_scores
from factorizer_nnunet.nnunet.exported_model import (
    CARD_FILE,
    MANIFEST_FILE,
    RECORD_FILE,
    ExportRecord,
    is_exported,
    manifest_of,
)
from factorizer_nnunet.nnunet.folds import NUMBER_OF_FOLDS
from factorizer_nnunet.nnunet.inference_settings import refuse_in_export
from factorizer_nnunet.nnunet.model_folder import ALL_CASES, CHECKPOINT_FINAL, ModelFolder
from factorizer_nnunet.nnunet.postprocessing import describe
from factorizer_nnunet.nnunet.weights_file import WEIGHTS_FILE, write_weights
from factorizer_nnunet.prediction.model import TrainedModel, load_model

ZIP_ENDING = ".zip"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")  # identifiers of the Hugging Face Hub, mostly those of SPDX
_STORED = (".safetensors", ".onnx")  # numbers that do not get smaller
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # of files in the zip, so that the same model gives the same bytes


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to export, and what its authors say about it.

    Attributes:
        model: folder ``TRAINER__PLANS__CONFIGURATION``.
        out: the folder, or zip file, to write.
        folds: numbers, or ``all``; None: every number that has the checkpoint, else ``all``.
        checkpoint: file name in each fold.
        trusted: whether code in checkpoints may be executed.
        text: for the card.
        license_file: the text of the licence.
        scores: a summary.json, or a folder with one, of scores to add to those of the validation.
        onnx: whether to write the networks as ONNX, too.
    """

    model: Path
    out: Path
    folds: tuple[str, ...] | None = None
    checkpoint: str = CHECKPOINT_FINAL
    trusted: bool = False
    text: CardText = field(default_factory=CardText)
    license_file: Path | None = None
    scores: Path | None = None
    onnx: bool = False


@dataclass(frozen=True)
class ExportOutcome:
    """What was written, and what the authors should still add."""

    record: ExportRecord
    size: int
    advice: tuple[str, ...]


def export_model(request: ExportRequest) -> ExportOutcome:
    """Export a model.

    Raises:
        UserError: the request cannot be fulfilled; nothing has been written.
        OSError: it cannot be written.
    """
    _check(request)
    model = load_model(request.model, request.folds, request.checkpoint, request.trusted)
    contents = read_contents(model, request.checkpoint, request.scores, request.license_file)
    if request.onnx:
        check_onnx(model)
    _check_space(model, request)
    record = ExportRecord(
        version=__version__,
        trainer=model.first.trainer_name,
        plans=model.plans.plans_name,
        configuration=model.first.configuration,
        folds=tuple(model.folds),
        checkpoint=request.checkpoint,
        channels=model.dataset.channel_names,
    )
    with _complete(request.out) as folder:
        contents.write(folder, _write_weights(folder, model))
        (folder / RECORD_FILE).write_text(json.dumps(record.content(), indent=4) + "\n", encoding="utf-8")
        if request.onnx:
            write_onnx(model, folder / ONNX_FOLDER)
        card = model_card(_facts(model, contents, record, folder), request.text)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        (folder / MANIFEST_FILE).write_text(manifest_of(folder), encoding="utf-8")
    size = sum(file.stat().st_size for file in _files(request.out))
    return ExportOutcome(record, size, tuple(_advice(request, contents, record.folds)))


def _check(request: ExportRequest) -> None:
    refuse_in_export()
    if is_exported(request.model):
        raise UserError(f"{request.model} is not a model folder; if it was exported before, copy it. Name the original")
    if request.out.exists():
        raise UserError(f"{request.out} exists and is not overwritten. Name another file or folder with -o")
    if not request.out.absolute().parent.is_dir():
        raise UserError(f"{request.out.absolute().parent} is not a folder. Make it, or name another place with -o")
    if not os.access(request.out.absolute().parent, os.W_OK | os.X_OK):
        raise UserError(f"no permission to write in {request.out.absolute().parent}. Name another place with -o")
    if _LICENSE.fullmatch(request.text.license) is None:
        raise UserError(
            f"--license {request.text.license!r} is not an identifier of a licence: give one such as apache-2.0, mit, "
            f"cc-by-4.0 or cc-by-nc-sa-4.0, or {OTHER_LICENSE} with its text in --license-file"
        )
    if request.text.license == OTHER_LICENSE and request.license_file is None:
        raise UserError(f"--license {OTHER_LICENSE} needs the text of the licence: name it with --license-file")


def _check_space(model: TrainedModel, request: ExportRequest) -> None:
    """Check that the disk has room for the weights, twice for a zip, which is made from a folder."""
    size = sum(w.numel() * w.element_size() for fold in model.folds.values() for w in fold.weights.values())
    needed = size * (2 if request.onnx else 1) * (2 if _is_zip(request.out) else 1)
    free = free_space(request.out.absolute().parent)
    if needed > free:
        raise UserError(f"{request.out} needs {needed / 1e9:.2f} GB while it is written, {free / 1e9:.2f} GB are left")


def _facts(model: TrainedModel, contents: Contents, record: ExportRecord, folder: Path) -> CardFacts:
    return CardFacts(
        record=record,
        dataset=model.dataset,
        dataset_name=str(model.dataset.content.get("name") or model.plans.plans.get("dataset_name", "")),
        network=type(model.network).__name__,
        weights=sum(one.numel() for one in model.network.parameters()),
        spacing_mm=model.configuration.spacing,
        patch=model.configuration.patch_size,
        normalization=normalization_in_words(model),
        takes_absent=model.description.takes_absent,
        is_cascade=model.configuration.previous_stage_name is not None,
        scores=contents.scores,
        nnunets_postprocessing=describe(contents.steps),
        rules={} if contents.rules is None else contents.rules.rules,
        files=[file.relative_to(folder).as_posix() for file in _files(folder)],
    )


@contextlib.contextmanager
def _complete(out: Path) -> Iterator[Path]:
    """Yield a new folder; it, or its zip, takes the name ``out`` if the block succeeds, and is removed otherwise."""
    if not _is_zip(out):
        with atomic_folder(out) as draft:
            yield draft
        return
    unzipped = out.with_name(f"{out.name}.files")
    clear_drafts(unzipped.parent, unzipped.name)
    folder = draft_of(unzipped)
    folder.mkdir()
    try:
        yield folder
        with atomic_file(out) as draft:
            _zip(folder, draft)
    finally:
        remove_draft(folder)


def _write_weights(folder: Path, model: TrainedModel) -> dict[str, str]:
    """Write the weights of all folds; returns their digests by fold."""
    digests = {}
    for fold, checkpoint in model.folds.items():
        target = ModelFolder(folder).fold(fold)
        target.path.mkdir()
        file = target.checkpoint(WEIGHTS_FILE)
        write_weights(
            file,
            checkpoint.weights,
            checkpoint.trainer_name,
            checkpoint.configuration,
            checkpoint.mirroring_axes,
            checkpoint.channel_drop,
        )
        digests[fold] = stamp_of(file).sha256
    return digests


def _zip(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in _files(folder):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), _FIXED_TIME)
            entry.compress_type = zipfile.ZIP_STORED if file.suffix in _STORED else zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as target, file.open("rb") as source:
                while chunk := source.read(1 << 20):
                    target.write(chunk)


def _advice(request: ExportRequest, contents: Contents, folds: Collection[str]) -> list[str]:
    given = {
        "--license": request.text.license != UNKNOWN_LICENSE,
        "--author": bool(request.text.authors),
        "--contact": bool(request.text.contact),
        "--intended-use": bool(request.text.intended_use),
        "--limitations": bool(request.text.limitations),
    }
    lacking = [option for option, is_given in given.items() if not is_given]
    advice = [f"the card says more with {', '.join(lacking)}"] if lacking else []
    absent = [str(fold) for fold in range(NUMBER_OF_FOLDS) if str(fold) not in folds]
    if request.folds is None and ALL_CASES not in folds and absent:
        advice.append(f"folds that are not trained are not in it: {', '.join(absent)}")
    if not contents.scores:
        why = lacking_scores(request.checkpoint) or "the folds were not validated on held-out cases"
        advice.append(f"no scores: {why}; add others with --test-scores")
    if contents.calibration is None and (request.model / CALIBRATION_FILE).is_file():
        advice.append(f"{CALIBRATION_FILE} is left out: it is about folds that are not exported")
    return advice


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ZIP_ENDING


def _files(path: Path) -> list[Path]:
    """A file itself, or all files below a folder."""
    return [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
