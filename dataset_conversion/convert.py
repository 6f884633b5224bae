"""The one path from a release on disk to an nnU-Net raw data set: find, check everything, then write it whole."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from factorizer_nnunet.dataset_conversion.check import check_case
from factorizer_nnunet.dataset_conversion.discover import Case, find_cases
from factorizer_nnunet.dataset_conversion.spec import Release
from factorizer_nnunet.dataset_conversion.write import write_case, write_dataset_json
from factorizer_nnunet.errors import UserError

Progress = Callable[[str, int, int], None]  # what is being done, how many cases are done, of how many


def convert_release(
    release: Release,
    source: Path,
    raw_folder: Path,
    dataset_id: int,
    name: str,
    progress: Progress | None = None,
) -> Path:
    """Convert the cases of `release` below `source` to `raw_folder`/DatasetXXX_`name`; returns that folder.

    The source is only read. The data set appears under its name when it is complete, or not at all; a kill in between
    leaves a hidden folder that the next conversion to the same target removes.

    Raises:
        UserError: bad ID or name, the target exists, no training case, or problems in the source: all of them in one
            message, a line each with case and file. Nothing has been written then.
    """
    target = _free_target(raw_folder, dataset_id, name)
    cases = _checked_cases(release, source, progress)
    training = [case for case in cases if case.label is not None]

    draft = raw_folder / f".{target.name}.partial"
    try:
        raw_folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        for number, case in enumerate(cases):
            write_case(release, case, draft)
            _report(progress, "writing", number + 1, len(cases))
        write_dataset_json(release, name, len(training), draft)
        draft.rename(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; nothing was left behind") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _free_target(raw_folder: Path, dataset_id: int, name: str) -> Path:
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


def _checked_cases(release: Release, source: Path, progress: Progress | None) -> list[Case]:
    if not source.is_dir():
        raise UserError(f"{source} is not a folder; give the folder that {release.title} was unpacked into")
    source = source.resolve()
    found = find_cases(release, source)
    problems = list(found.problems)
    for number, case in enumerate(found.cases):
        problems += check_case(release, case)
        _report(progress, "checking", number + 1, len(found.cases))
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"{len(problems)} problems in {source}, nothing was written:\n{lines}")
    if not any(case.label is not None for case in found.cases):
        expected = f"folders named like {release.case_pattern} with {release.label_file.format(case='<name>')}.nii.gz"
        raise UserError(f"no labelled case of {release.title} below {source}: expected {expected}")
    return found.cases


def _report(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)
