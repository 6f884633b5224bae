"""The one path from a release on disk to an nnU-Net raw data set: find, check everything, then write it whole."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from factorizer_nnunet.core.atomic_files import file_lock
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.worker_pool import map_unordered
from factorizer_nnunet.dataset_conversion.check import Examined
from factorizer_nnunet.dataset_conversion.discover import Listing
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.report import total_mm3, write_report
from factorizer_nnunet.dataset_conversion.spec import Channel, Release, Scheme
from factorizer_nnunet.dataset_conversion.splits import five_folds
from factorizer_nnunet.dataset_conversion.survey import Survey, refuse_problems, survey_release
from factorizer_nnunet.dataset_conversion.write import Written, write_case, write_dataset_json
from factorizer_nnunet.nnunet.names import SPLITS_FILE

_MARGIN_BYTES = 2**26  # left free on the disk
_BYTES_PER_VOXEL = 2  # of what is written anew, compressed


@dataclass(frozen=True)
class Converted:
    """A data set that was written: its folder, how many folds it has, and the registrations that failed."""

    folder: Path
    num_folds: int
    failed_registrations: tuple[str, ...]


def convert_release(
    release: Release,
    listing: Listing,
    raw_folder: Path,
    options: Options,
    tell: Callable[[Survey], None] = lambda survey: None,
) -> Converted:
    """Convert the cases of ``release`` to ``raw_folder``/DatasetXXX_NAME.

    The sources are only read. The data set appears under its name when it is complete, or not at all; a kill in between
    leaves a hidden folder that the next conversion to the same ID removes.

    Args:
        release: what the sources hold.
        listing: of their files.
        raw_folder: nnUNet_raw.
        options: choices.
        tell: called with what was found, before anything is refused or written.

    Raises:
        UserError: a bad ID or name, the target exists or another process writes it, no case, no room on the disk, or
            problems in the source: all of them in one message, a line each with case and file. Nothing has been
            written then.
    """
    target = free_target(raw_folder, options.dataset_id, options.name or default_name(release))
    survey = survey_release(release, listing, options)
    tell(survey)
    refuse_problems(survey, listing, options)
    lock = raw_folder / f".Dataset{options.dataset_id:03d}.lock"
    try:
        raw_folder.mkdir(parents=True, exist_ok=True)
        with file_lock(
            lock, f"another process is converting to ID {options.dataset_id}: wait for it or choose another -d"
        ):
            try:
                # Once more: another process may have finished while this one read the sources.
                free_target(raw_folder, options.dataset_id, target.name.split("_", 1)[1])
                return _write_data_set(survey, target, listing, options)
            finally:
                lock.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; nothing was left behind") from error


def _write_data_set(survey: Survey, target: Path, listing: Listing, options: Options) -> Converted:
    """Write the kept cases, dataset.json, folds and report to the new folder ``target``."""
    for leftover in target.parent.glob(f".Dataset{options.dataset_id:03d}_*.partial"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    draft = target.with_name(f".{target.name}.partial")
    try:
        _check_room(survey, target.parent, options)
        for part in ("imagesTr", "labelsTr", "imagesTs")[: 3 if len(survey.training) < len(survey.kept) else 2]:
            (draft / part).mkdir(parents=True)
        writing = partial(_write, survey.release, survey.channels, survey.scheme, draft, options)
        written = sorted(map_unordered(writing, survey.kept, options.jobs, "writing"), key=lambda one: one.case)
        name = target.name.split("_", 1)[1]
        write_dataset_json(survey.release, survey.channels, survey.scheme, name, len(survey.training), draft)
        folds = _folds(survey, options)
        if folds:
            (draft / SPLITS_FILE).write_text(json.dumps(folds, indent=4) + "\n", encoding="utf-8")
        write_report(draft, target.name, survey, written, folds, listing.sources, options)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    failed = (
        f"{w.case}: {r.channel}: {r.registration.text}" for w in written for r in w.registered if not r.registration.ok
    )
    return Converted(target, len(folds), tuple(failed))


def default_name(release: Release) -> str:
    """Name of the data set, from the release's title: letters, digits and _."""
    return re.sub(r"[^A-Za-z0-9]+", "_", release.title).strip("_")


def free_target(raw_folder: Path, dataset_id: int, name: str) -> Path:
    """The folder to be written.

    Raises:
        UserError: the ID or the name cannot be nnU-Net's, or the ID is taken.
    """
    if not 1 <= dataset_id <= 999:
        raise UserError(f"data set ID {dataset_id} is not between 1 and 999")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"data set name {name!r} may hold letters, digits, _ and -, and starts with a letter or digit")
    taken = sorted(path.name for path in raw_folder.glob(f"Dataset{dataset_id:03d}_*"))
    if taken:
        raise UserError(
            f"{raw_folder} already has {', '.join(taken)}, and an ID stands for one data set: choose another ID "
            f"than {dataset_id}, or remove that folder first"
        )
    return raw_folder / f"Dataset{dataset_id:03d}_{name}"


def _write(
    release: Release, channels: Sequence[Channel], scheme: Scheme, folder: Path, options: Options, examined: Examined
) -> Written:
    return write_case(
        release,
        channels,
        scheme,
        examined,
        folder,
        remap=options.remap_of(examined.case.name),
        link=options.link,
        register=options.register,
    )


def _folds(survey: Survey, options: Options) -> list[dict[str, list[str]]]:
    training = survey.training
    return five_folds(
        {e.case.name: e.case.patient for e in training},
        {e.case.name: total_mm3(survey.scheme, e) for e in training},
        {e.case.name: e.case.stratum for e in training},
        options.seed,
    )


def _check_room(survey: Survey, folder: Path, options: Options) -> None:
    """Refuse a disk that cannot hold the set, before anything is written to it.

    Raises:
        OSError: too little room.
    """
    needed = _MARGIN_BYTES + sum(_bytes_of(e, options) for e in survey.kept)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"the disk has {free / 1e9:.1f} GB free and about {needed / 1e9:.1f} GB are needed")


def _bytes_of(examined: Examined, options: Options) -> int:
    """About what the images of a case take on the disk."""
    total = 0
    for path, facts in zip(examined.case.images, examined.images, strict=True):
        if facts.treatment == "copy":
            total += 0 if options.link else path.stat().st_size
        else:
            total += _BYTES_PER_VOXEL * math.prod(examined.images[0].size)
    return total
