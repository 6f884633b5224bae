"""Convert predictions of nnU-Net to the format of a challenge, after checking them against their images."""

from __future__ import annotations

import contextlib
import gzip
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from factorizer_nnunet.core.atomic_files import atomic_file, atomic_folder
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import first_few, list_of_problems
from factorizer_nnunet.dataset_conversion.cases import FILE_ENDING
from factorizer_nnunet.dataset_conversion.layout import is_nifti
from factorizer_nnunet.dataset_conversion.report import REPORT_FILE
from factorizer_nnunet.dataset_conversion.spec import LabelMap, Release
from factorizer_nnunet.dataset_conversion.written_report import WrittenCase, WrittenReport, read_written_report
from factorizer_nnunet.imaging.checks import grid_problem, unexpected_labels_problem
from factorizer_nnunet.imaging.grid import grid_of
from factorizer_nnunet.imaging.labels import count_labels, integer_labels
from factorizer_nnunet.imaging.volume import nifti_bytes, read_header, read_volume


@dataclass(frozen=True)
class Submission:
    """A submission that was written."""

    folder: Path
    archive: Path | None  # the zip file, if requested
    cases: int
    missing: tuple[str, ...]  # unlabelled cases without a prediction; training cases if only such were predicted


def find_data_set(release: Release, predictions: Path, raw_folder: Path, dataset: str | None) -> Path:
    """Find the converted data set of the predictions, by its ID or name; without, the one with all predicted cases.

    Raises:
        UserError: no data set matches, or several do.
    """
    pattern = dataset or "Dataset*"
    pattern = f"Dataset{int(pattern):03d}_*" if pattern.isdecimal() else pattern
    names = {path.name.removesuffix(FILE_ENDING) for path in predictions.glob(f"*{FILE_ENDING}")}
    matching, others, damaged, strangers = [], "", "", names
    for report in sorted(raw_folder.glob(f"{pattern}/{REPORT_FILE}")):
        try:
            written = read_written_report(report)
        except UserError as error:  # possibly of another release: only relevant if no other matches
            damaged = f". {error}"
            continue
        if written.release == release.key and (dataset is not None or names <= written.cases.keys()):
            matching.append(report.parent)
        elif dataset is not None:
            others = f". {report.parent.name} was converted from {written.release}"
        elif written.release == release.key and len(names - written.cases.keys()) < len(strangers):
            strangers = names - written.cases.keys()
            others = f". {report.parent.name} has all but {first_few(sorted(strangers))}: are these predictions, too?"
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise UserError(f"{', '.join(p.name for p in matching)} all have these cases: choose one with -d")
    which = "these cases" if dataset is None else f"the ID or name {dataset}"
    raise UserError(
        f"{raw_folder} has no data set converted from {release.key} with {which}: convert it, or give another "
        f"-d{others}{damaged}"
    )


def to_challenge(
    release: Release,
    predictions: Path,
    out: Path,
    data_set: Path,
    archive: bool = False,
    ignore_geometry: bool = False,
) -> Submission:
    """Write the predictions with the release's label values and file names to the new folder ``out``.

    Args:
        release: that ``data_set`` was converted from.
        predictions: folder of nnU-Net's predictions CASE.nii.gz, integers on the grid of the case's first channel.
        out: a folder that does not exist yet; it appears when it is complete.
        data_set: folder of the converted data set, below nnUNet_raw.
        archive: also write ``out``.zip with the same files.
        ignore_geometry: predictions of the image's shape may lie elsewhere; they are written where the image lies.

    Raises:
        UserError: ``out`` exists, there are no predictions, there are problems (all in one message), or the disk is
            full. Nothing is written then.
    """
    report = read_written_report(data_set / REPORT_FILE)
    out = Path(os.path.abspath(out))
    packed = out.with_name(f"{out.name}.zip")
    for path in (out, packed) if archive else (out,):
        if path.exists():
            raise UserError(f"{path} already exists and is not overwritten: remove it or choose another OUT")
    if Path(os.path.abspath(predictions)) in out.parents:
        raise UserError(f"{out} would be within {predictions}, among the predictions: choose another OUT")
    files = sorted(path for path in predictions.glob("*") if is_nifti(path.name))
    if not files:
        raise UserError(f"{predictions} has no predictions CASE{FILE_ENDING}: give the folder of nnUNetv2_predict")
    reading = tqdm(files, desc="checking", unit="case", disable=None)
    problems = [text for path in reading for text in _problems(release, path, report, data_set, ignore_geometry)]
    if problems:
        raise UserError(list_of_problems(problems, f"in {predictions}, nothing was written"))
    cases = {path.name.removesuffix(FILE_ENDING): path for path in files}
    try:
        with contextlib.ExitStack() as pending:  # the archive appears after the folder, so entered before it
            zip_file = pending.enter_context(atomic_file(packed)) if archive else None
            draft = pending.enter_context(atomic_folder(out))
            for name, path in tqdm(cases.items(), desc="writing", unit="case", disable=None):
                target = draft / _submitted_name(release, name, report.cases[name])
                target.parent.mkdir(parents=True, exist_ok=True)
                _write(path, report.cases[name].grid_image, report.back, target)
            for name, text in release.submission_extra.items():
                (draft / name).write_text(text, encoding="utf-8")
            if zip_file is not None:
                _pack(draft, zip_file)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}; nothing was left behind") from error
    unlabelled = {name for name, case in report.cases.items() if not case.is_labelled}
    expected = unlabelled if unlabelled & cases.keys() else report.cases.keys() - unlabelled
    return Submission(out, packed if archive else None, len(files), tuple(sorted(expected - cases.keys())))


def _submitted_name(release: Release, name: str, case: WrittenCase) -> str:
    """The file name of a prediction in the submission.

    Raises:
        KeyError: a field of the name is unknown for this case.
    """
    return release.submission.format_map({**case.fields, "case": name})


def _problems(release: Release, path: Path, report: WrittenReport, data_set: Path, ignore_geometry: bool) -> list[str]:
    name = path.name.removesuffix(FILE_ENDING)
    if name not in report.cases:
        rename = "" if path.name.endswith(FILE_ENDING) else f"; predictions end with {FILE_ENDING}: rename it"
        return [f"{path}: {name} is not a case of {data_set.name}{rename}"]
    texts = []
    try:
        _submitted_name(release, name, report.cases[name])
    except KeyError as error:
        texts.append(
            f"{path}: a submission is named after the number of the {error.args[0]} file, which the source of "
            f"{data_set.name} lacked; convert it with these files"
        )
    image = report.cases[name].grid_image
    try:
        volume = read_volume(path)
    except OSError as error:
        return [*texts, f"{path}: {error}"]
    try:
        grid = grid_of(read_header(image))
    except OSError as error:
        return [*texts, f"{image}, the image of this case: {error}"]
    if difference := grid_problem(volume.grid, grid, "the image", ignore_geometry):
        texts.append(f"{path}: {difference}")
    try:
        counts = count_labels(integer_labels(volume.values))
    except ValueError as error:
        return [*texts, f"{path}: {error}"]
    if unexpected := unexpected_labels_problem(counts, report.back.to_nnunet.keys(), "this data set"):
        is_submitted = counts.keys() <= set(report.back.to_nnunet.values())
        advice = "; all are values of the challenge: was this file converted before?" if is_submitted else ""
        texts.append(f"{path}: {unexpected}{advice}")
    return texts


def _write(prediction: Path, image: Path, back: LabelMap, target: Path) -> None:
    """Write mapped labels, uint8, with the geometry of their image."""
    labels = back.apply(integer_labels(read_volume(prediction).values))
    content = nifti_bytes(labels, read_header(image))
    target.write_bytes(content if target.name.endswith(".gz") else gzip.decompress(content))


def _pack(folder: Path, target: Path) -> None:
    """Write all files below ``folder``, which are already compressed, to a zip file."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
