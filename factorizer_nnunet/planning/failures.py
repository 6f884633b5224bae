"""What nnU-Net's functions raise while they plan and preprocess, as one message that names the case.

nnU-Net's workers raise whatever a library raises, without a word about the case. So after a failure the cases are
tried one by one in this process until one fails, and the complete traceback goes to a log file.
"""

from __future__ import annotations

import contextlib
import io
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.core.disk import free_space, is_disk_full
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.dataset_check.raw import RawDataset
from factorizer_nnunet.nnunet.dataset_json import CaseFiles

LOG_FILE = "factorizer_plan_error.log"  # in the dataset's folder in nnUNet_preprocessed
TryCase = Callable[[CaseFiles], object]
_WORKER_DIED = "background worker"  # in nnU-Net's message when a process was killed


@contextlib.contextmanager
def failures_reported(step: str, folder: Path, cases: Sequence[CaseFiles], try_case: TryCase) -> Iterator[None]:
    """Turn whatever the block raises into a ``UserError`` that names case and files.

    Args:
        step: what the block does, such as "the fingerprint".
        folder: the dataset's folder in ``nnUNet_preprocessed``, for the log.
        cases: the training cases.
        try_case: does for one case, in this process, what the block does in workers.

    Raises:
        UserError: the block raised an exception that is not one.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        log = _logged(folder, traceback.format_exc())
        if is_disk_full(folder, error):
            raise UserError(
                f"{step} failed: the disk of {folder} is full ({free_space(folder) / 1e6:.0f} MB left). Free space, "
                "then run the same command again"
            ) from error
        raise UserError(
            f"{step} failed{_culprit(error, cases, try_case)}. The complete traceback is in {log}"
        ) from error


def try_fingerprint(raw: RawDataset) -> TryCase:
    """A function that does for one case what nnU-Net's fingerprint does."""

    def try_case(case: CaseFiles) -> None:
        reader = recursive_find_reader_writer_by_name(raw.reader)
        DatasetFingerprintExtractor.analyze_case(list(map(str, case.images)), str(case.label), reader)

    return try_case


def try_preprocessing(raw: RawDataset, plans: Mapping[str, Any], configurations: Sequence[str]) -> TryCase:
    """A function that does for one case what nnU-Net's preprocessing does, without writing."""

    def try_case(case: CaseFiles) -> None:
        manager = PlansManager(dict(plans))
        for configuration in map(manager.get_configuration, configurations):
            preprocessor = configuration.preprocessor_class(verbose=False)
            images, label = list(map(str, case.images)), str(case.label)
            preprocessor.run_case(images, label, manager, configuration, raw.description.content)

    return try_case


def _culprit(error: BaseException, cases: Sequence[CaseFiles], try_case: TryCase) -> str:
    if isinstance(error, MemoryError) or _WORKER_DIED in str(error).lower():
        return ": a worker process ended, most likely because memory ran out. Use fewer processes (-np)"
    for case in cases:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                try_case(case)
        except Exception as problem:
            files = ", ".join(map(str, (*case.images, case.label)))
            return f" for case {case.name} ({files}): {_in_a_line(problem)}"
    return f": {_in_a_line(error)}"


def _in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")


def _logged(folder: Path, text: str) -> str:
    log = folder / LOG_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log.write_text(text, encoding="utf-8")
    except OSError as error:
        return f"no log, since {log} cannot be written ({error.strerror})"
    return str(log)
