"""Check all files of a raw dataset: each is read once, in parallel, and all problems of all cases come at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Stamp, has_size_and_time, is_unchanged, stamp_of
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.core.worker_pool import map_unordered
from factorizer_nnunet.dataset_check.dataset_rules import dataset_problems, dataset_warnings
from factorizer_nnunet.dataset_check.duplicates import duplicate_warnings
from factorizer_nnunet.dataset_check.facts import FileFacts, read_facts
from factorizer_nnunet.dataset_check.record import RECORD_FILE, Known, read_record, write_record
from factorizer_nnunet.dataset_check.rules import CaseFacts, Expected, case_problems
from factorizer_nnunet.nnunet.dataset_json import CaseFiles

SKIP_OPTION = "--no-data-check"
# Compressed images that one process reads about as fast as others take to start.
_READ_HERE_BYTES = 10e6


@dataclass(frozen=True)
class CheckedDataset:
    """A dataset without problems.

    Attributes:
        files: what is known of each file.
        warnings: what may be intended, a sentence each.
        num_read: how many files had to be read.
    """

    files: Mapping[Path, Known]
    warnings: tuple[str, ...]
    num_read: int


def check_dataset(
    cases: Sequence[CaseFiles], expected: Expected, reader: str, record_folder: Path, num_processes: int
) -> CheckedDataset:
    """Look at every voxel of every file that is not known to be unchanged since it was last looked at.

    What is known is kept in ``record_folder``, the dataset's folder in ``nnUNet_preprocessed``.

    Raises:
        UserError: all problems of all cases; nothing has been written.
    """
    record_file = record_folder / RECORD_FILE
    before = read_record(record_file, reader)
    known: dict[Path, Known] = {}
    to_read: list[tuple[Path, bool]] = []
    for path, is_label in {p: p == case.label for case in cases for p in (*case.images, case.label)}.items():
        old = before.get(os.fspath(path))
        if old is not None and is_unchanged(path, old.stamp):
            # A file that was only touched gets its new time, so that it need not be read again.
            known[path] = old if has_size_and_time(path, old.stamp) else Known(stamp_of(path), old.facts)
        else:
            to_read.append((path, is_label))
    facts = {path: one.facts for path, one in known.items()}
    is_little = sum(_size(path) for path, _ in to_read) < _READ_HERE_BYTES
    for path, stamp, found in map_unordered(
        partial(_look_at, reader), to_read, 1 if is_little else num_processes, "checking images and labels"
    ):
        facts[path] = found
        if stamp is not None:
            known[path] = Known(stamp, found)
    checked = [
        CaseFacts(case.name, tuple((path, facts[path]) for path in case.images), (case.label, facts[case.label]))
        for case in cases
    ]
    problems = [problem for case in checked for problem in case_problems(case, expected)]
    readable = {case.name: case.label[1] for case in checked if case.label[1].values is not None}
    if len(readable) == len(checked):
        problems += dataset_problems(readable, cases[0].label.parent, expected)
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems)
        advice = f"\nTo use the data as they are: {SKIP_OPTION}" if all(one.may_be_meant for one in problems) else ""
        raise UserError(
            f"{count_of(len(problems), 'problem')} in the images and labels of {expected.json_file.parent}; nothing "
            f"has been written:\n{listed}{advice}"
        )
    if {os.fspath(path): one for path, one in known.items()} != before:
        record_folder.mkdir(parents=True, exist_ok=True)
        write_record(record_file, reader, {os.fspath(path): one for path, one in known.items()})
    warnings = (*dataset_warnings(readable, expected), *duplicate_warnings(cases, known))
    return CheckedDataset(known, warnings, len(to_read))


def _size(path: Path) -> int:
    """Bytes of a file; 0 if it cannot be read, which ``_look_at`` reports."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _look_at(reader: str, file: tuple[Path, bool]) -> tuple[Path, Stamp | None, FileFacts]:
    """Stamp and facts of a file, the stamp being None if it cannot be read; runs in a worker process."""
    path, is_label = file
    try:
        stamp = stamp_of(path)
    except OSError as error:
        return path, None, FileFacts(error=f"cannot be read: {error.strerror or error}")
    return path, stamp, read_facts(path, reader, is_label)
