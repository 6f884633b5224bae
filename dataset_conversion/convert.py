"""Convert a release on disk to an nnU-Net raw data set: find cases, check everything, then write atomically."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from factorizer_nnunet.core.atomic_files import atomic_folder, clear_drafts
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.core.worker_pool import map_unordered
from factorizer_nnunet.dataset_conversion.check import Examined
from factorizer_nnunet.dataset_conversion.discover import SourceListing
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.report import Conversion, total_mm3, write_report
from factorizer_nnunet.dataset_conversion.spec import Release
from factorizer_nnunet.dataset_conversion.splits import five_folds
from factorizer_nnunet.dataset_conversion.survey import Survey, refuse_problems, survey_release
from factorizer_nnunet.dataset_conversion.write import dataset_json, write_case
from factorizer_nnunet.nnunet.names import SPLITS_FILE

_MARGIN_BYTES = 2**26  # left free on the disk
_BYTES_PER_VOXEL = 2  # of rewritten images, compressed


@dataclass(frozen=True)
class Converted:
    """A converted data set."""

    folder: Path
    num_folds: int
    failed_registrations: tuple[str, ...]  # one message each


def convert_release(
    release: Release,
    listing: SourceListing,
    raw_folder: Path,
    options: Options,
    on_survey: Callable[[Survey], None] = lambda survey: None,
) -> Converted:
    """Convert the cases of ``release`` to ``raw_folder``/DatasetXXX_NAME.

    The sources are only read. The data set appears under its name only when it is complete. A killed process leaves a
    hidden folder, which the next conversion removes.

    ``on_survey`` is called with the survey before anything is rejected or written.

    Raises:
        UserError: invalid ID or name, the target exists or is being written by another process, no cases, too little
            disk space, or problems in the sources, all in one message with case and file. Nothing is written then.
    """
    target = free_target(raw_folder, options.dataset_id, options.name or default_name(release))
    survey = survey_release(release, listing, options)
    on_survey(survey)
    refuse_problems(survey, listing, options)
    lock = raw_folder / f".Dataset{options.dataset_id:03d}.lock"
    try:
        raw_folder.mkdir(parents=True, exist_ok=True)
        with file_lock(lock, f"another process is converting to ID {options.dataset_id}: wait or choose another -d"):
            try:
                # Check again: another process may have finished while this one read the sources.
                free_target(raw_folder, options.dataset_id, target.name.split("_", 1)[1])
                return _write_data_set(survey, target, listing, options)
            finally:
                lock.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; nothing was left behind") from error


def _write_data_set(survey: Survey, target: Path, listing: SourceListing, options: Options) -> Converted:
    """Write the kept cases, dataset.json, folds and report to the new folder ``target``."""
    clear_drafts(target.parent)
    _check_disk_space(survey, target.parent, options)
    with atomic_folder(target) as draft:
        for part in ("imagesTr", "labelsTr", "imagesTs")[: 3 if len(survey.training) < len(survey.kept) else 2]:
            (draft / part).mkdir()
        writing = partial(write_case, survey.release, survey.channels, survey.scheme, draft, options)
        registered = [one for case in map_unordered(writing, survey.kept, options.jobs, "writing") for one in case]
        registered.sort(key=lambda one: one.case)
        name = target.name.split("_", 1)[1]
        training = [examined.case for examined in survey.training]
        description = dataset_json(survey.release, survey.channels, survey.scheme, name, training)
        _write_json(draft / "dataset.json", description)
        folds = five_folds(
            {e.case.name: e.case.patient for e in survey.training},
            {e.case.name: total_mm3(survey.scheme, e) for e in survey.training},
            {e.case.name: e.case.stratum for e in survey.training},
            options.seed,
        )
        if folds:
            _write_json(draft / SPLITS_FILE, folds)
        write_report(draft, Conversion(target.name, survey, registered, folds, listing.sources, options))
    failed = (f"{r.case}: {r.channel}: {r.registration.text}" for r in registered if not r.registration.ok)
    return Converted(target, len(folds), tuple(failed))


def default_name(release: Release) -> str:
    """Data set name derived from the release's title: letters, digits and _."""
    return re.sub(r"[^A-Za-z0-9]+", "_", release.title).strip("_")


def free_target(raw_folder: Path, dataset_id: int, name: str) -> Path:
    """The folder to write.

    Raises:
        UserError: invalid ID or name, or the ID is in use.
    """
    if not 1 <= dataset_id <= 999:
        raise UserError(f"invalid data set ID {dataset_id}: expected 1 to 999")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(
            f"invalid data set name {name!r}: expected letters, digits, _ and -, starting with a letter or digit"
        )
    taken = sorted(path.name for path in raw_folder.glob(f"Dataset{dataset_id:03d}_*"))
    if taken:
        raise UserError(
            f"{raw_folder} already has {', '.join(taken)}, and an ID belongs to one data set: choose another ID "
            f"than {dataset_id}, or remove that folder first"
        )
    return raw_folder / f"Dataset{dataset_id:03d}_{name}"


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _check_disk_space(survey: Survey, folder: Path, options: Options) -> None:
    """Check the disk space before anything is written.

    Raises:
        OSError: too little space.
    """
    needed = _MARGIN_BYTES + sum(_bytes_of(e, options) for e in survey.kept)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"the disk has {free / 1e9:.1f} GB free, but about {needed / 1e9:.1f} GB are needed")


def _bytes_of(examined: Examined, options: Options) -> int:
    """Approximate size of a case's images on disk."""
    total = 0
    for path, facts in zip(examined.case.images, examined.images, strict=True):
        if path is None:
            continue  # zeros take hardly any
        if facts.treatment == "copy":
            total += 0 if options.link else path.stat().st_size
        else:
            total += _BYTES_PER_VOXEL * math.prod(examined.images[0].grid.size)
    return total
