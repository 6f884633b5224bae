"""Assess the cases of a folder of predictions and write tables and worklist next to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, DatasetJson
from factorizer_nnunet.nnunet.pass_record import PASSES_ENDING, PassRecord, passes_file, read_passes
from factorizer_nnunet.nnunet.prediction_record import RECORDS, is_edited, recorded_warnings
from factorizer_nnunet.pages.limits import ViewerLimits
from factorizer_nnunet.quality.assess import CaseQuality, Judge, assess, judges_of, of_passes
from factorizer_nnunet.quality.shown_cases import files_of
from factorizer_nnunet.quality.tables import write_tables
from factorizer_nnunet.quality.worklist import PAGE_FILE, worklist_page
from factorizer_nnunet.report.own_pages import page_file, write_page

_EDITED = "the segmentation was edited after it was predicted: all numbers are those of the predicted one"


@dataclass(frozen=True)
class Assessment:
    """What was written.

    Attributes:
        cases: the most doubtful first.
        judges: the models.
        page: the worklist.
        kept: earlier files that someone had edited, under their new names.
    """

    cases: tuple[CaseQuality, ...]
    judges: tuple[Judge, ...]
    page: Path
    kept: tuple[Path, ...]


def write_quality(
    folder: Path,
    limits: ViewerLimits = ViewerLimits(),  # noqa: B008 - immutable
    failed: Mapping[str, str] = MappingProxyType({}),
) -> Assessment:
    """Assess all cases of a folder that ``predict --quality`` has written.

    Args:
        folder: of the predictions.
        limits: of the viewer.
        failed: cases that could not be predicted, with the reason.

    Raises:
        UserError: a record cannot be read, a case not be shown, or a file not be written.
    """
    dataset = DatasetJson.read(folder / DATASET_FILE)
    names = [
        path.name.removesuffix(PASSES_ENDING)
        for path in sorted((folder / RECORDS).glob(f"*{PASSES_ENDING}"))
        if (folder / f"{path.name.removesuffix(PASSES_ENDING)}{dataset.file_ending}").is_file()
    ]
    judges = judges_of(folder)
    records = {name: _passes(passes_file(folder, name), len(judges)) for name in names}
    judges = [of_passes(judge, [own[n] for own in records.values()]) for n, judge in enumerate(judges)]
    cases = [assess(name, own, judges, _notes(folder, name, dataset.file_ending)) for name, own in records.items()]
    cases.sort(key=_order)
    target = page_file(folder / PAGE_FILE)
    with file_lock(folder / RECORDS / "quality.lock", f"another command writes {target}; wait until it ends"):
        try:
            kept = [write_tables(cases, judges, folder, failed)]
            files = files_of(folder, names, dataset.file_ending)
            page = worklist_page(folder.absolute().name, cases, judges, files, dataset, limits, failed)
            kept.append(write_page(target, page))
        except OSError as error:
            raise UserError(f"cannot write {target.parent}: {error}. Check its permissions and the space") from error
    return Assessment(tuple(cases), tuple(judges), target, tuple(path for path in kept if path is not None))


def _notes(folder: Path, case: str, file_ending: str) -> tuple[str, ...]:
    """What else there is to say of a case: warnings about its images, and that its segmentation was edited."""
    edited = is_edited(folder, case, folder / f"{case}{file_ending}")
    return (*recorded_warnings(folder, case), *[_EDITED] * edited)


def _order(case: CaseQuality) -> tuple[float, int, str]:
    """By doubt; a case of which nothing is known comes first, since nothing else speaks for it."""
    return -math.inf if math.isnan(case.doubt) else -case.doubt, -len(case.flags), case.case


def _passes(file: Path, num_models: int) -> list[PassRecord]:
    """The records of a case, one for each model."""
    records = read_passes(file)
    if len(records) != num_models:
        raise UserError(
            f"{file} has passes of {count_of(len(records), 'model')}, but {count_of(num_models, 'model')} predicted. "
            "Remove it and predict the case again with --quality"
        )
    return records
