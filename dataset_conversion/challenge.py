"""The way back: predictions of nnU-Net as a challenge wants them, checked against the images they were made for."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.dataset_conversion.grid import geometry_difference
from factorizer_nnunet.dataset_conversion.report import REPORT_FILE
from factorizer_nnunet.dataset_conversion.spec import LabelMap, Release
from factorizer_nnunet.dataset_conversion.volume import integer_labels, nifti_bytes, read_header, read_volume
from factorizer_nnunet.errors import UserError
from factorizer_nnunet.files import folder_written_whole, load_json_object

ENDING = ".nii.gz"


@dataclass(frozen=True)
class Submission:
    """What was written: ``cases`` of ``expected`` unlabelled ones, the folder, and the archive if one was asked for."""

    folder: Path
    archive: Path | None
    cases: int
    expected: int


def find_data_set(release: Release, predictions: Path, raw_folder: Path, dataset_id: int | None) -> Path:
    """The converted data set that the predictions belong to.

    Args:
        release: which release it was converted from.
        predictions: folder of nnU-Net's predictions.
        raw_folder: nnUNet_raw.
        dataset_id: of the data set; None takes the one of this release that has all predicted cases.

    Raises:
        UserError: none, or several.
    """
    pattern = "Dataset*" if dataset_id is None else f"Dataset{dataset_id:03d}_*"
    names = {path.name.removesuffix(ENDING) for path in predictions.glob(f"*{ENDING}")}
    fitting = []
    for report in sorted(raw_folder.glob(f"{pattern}/{REPORT_FILE}")):
        content = load_json_object(report, "Convert the data set anew")
        if content.get("release") == release.key and (dataset_id is not None or names <= set(content["cases"])):
            fitting.append(report.parent)
    if len(fitting) == 1:
        return fitting[0]
    wanted = f"data set converted from {release.key}" + (f" with ID {dataset_id}" if dataset_id is not None else "")
    if fitting:
        raise UserError(f"{', '.join(p.name for p in fitting)} all have these cases: say with -d which it is")
    raise UserError(f"{raw_folder} has no {wanted} that these predictions are of: convert it, or give another -d")


def to_challenge(release: Release, predictions: Path, out: Path, data_set: Path, archive: bool = False) -> Submission:
    """Write the predictions with the release's label values and file names to the new folder ``out``.

    Args:
        release: the release that ``data_set`` was converted from.
        predictions: folder of CASE.nii.gz as nnU-Net predicts them, integers on the grid of the case's first channel.
        out: a folder that does not exist yet; it appears when it is complete.
        data_set: of the converted set, below nnUNet_raw.
        archive: also write ``out``.zip, with the files alone.

    Raises:
        UserError: ``out`` exists, no predictions, or problems: all of them in one message. Nothing is written then.
    """
    report = load_json_object(data_set / REPORT_FILE, "Convert the data set anew")
    packed = out.with_name(f"{out.name}.zip")
    for path in (out, packed) if archive else (out,):
        if path.exists():
            raise UserError(f"{path} exists already and is not overwritten: remove it or choose another OUT")
    files = sorted(predictions.glob(f"*{ENDING}")) if predictions.is_dir() else []
    if not files:
        raise UserError(f"{predictions} holds no prediction CASE{ENDING}; give the folder nnUNetv2_predict wrote to")
    back = LabelMap({int(old): int(new) for old, new in report["label_map_back"].items()})
    problems = [text for path in files for text in _problems(path, report["cases"], back, data_set)]
    if problems:
        lines = "\n".join(f"  {text}" for text in problems)
        raise UserError(f"{len(problems)} problems in {predictions}, nothing was written:\n{lines}")
    unlabelled = {name for name, case in report["cases"].items() if case["label"] is None}
    with folder_written_whole(out) as draft:
        for path in files:
            name = path.name.removesuffix(ENDING)
            target = draft / release.submission.format_map({**report["cases"][name]["fields"], "case": name})
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(path, _first_image(name, report["cases"][name], data_set), back, target)
        for name, text in release.submission_extra.items():
            (draft / name).write_text(text, encoding="utf-8")
    if archive:
        _pack(out, packed)
    return Submission(
        out, packed if archive else None, len(files), len(unlabelled) if unlabelled else len(report["cases"])
    )


def _problems(path: Path, cases: Mapping[str, Any], back: LabelMap, data_set: Path) -> list[str]:
    name = path.name.removesuffix(ENDING)
    if name not in cases:
        return [f"{path}: {name} is not a case of {data_set.name}"]
    try:
        volume = read_volume(path)
        reference = read_volume(_first_image(name, cases[name], data_set))
    except OSError as error:
        return [f"{path}: {error}"]
    difference = geometry_difference(volume.grid, reference.grid)
    texts = [] if difference is None else [f"{path}: {difference} of the image"]
    try:
        unexpected = back.unexpected(integer_labels(volume.values))
    except ValueError as error:
        return [*texts, f"{path}: {error}"]
    if unexpected:
        values = ", ".join(f"{value} ({count} voxels)" for value, count in unexpected.items())
        texts.append(f"{path}: label values {values}; this data set has {sorted(back.to_nnunet)}")
    return texts


def _first_image(name: str, case: Mapping[str, Any], data_set: Path) -> Path:
    part = "imagesTs" if case["label"] is None else "imagesTr"
    return data_set / part / f"{name}_{case['grid_channel']:04d}{ENDING}"


def _write(prediction: Path, image: Path, back: LabelMap, target: Path) -> None:
    """Mapped labels, uint8, under the geometry of the image they belong to."""
    labels = back.apply(integer_labels(read_volume(prediction).values))
    content = nifti_bytes(labels, read_header(image))
    target.write_bytes(content if target.name.endswith(".gz") else gzip.decompress(content))


def _pack(folder: Path, target: Path) -> None:
    """All files below ``folder`` in a zip that appears whole; they are compressed already."""
    draft = target.with_name(f".{target.name}.partial")
    try:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(folder).as_posix())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
