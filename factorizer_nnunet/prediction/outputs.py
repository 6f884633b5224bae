"""The folder of predictions: whose it is, which cases in it are complete, and how a case gets there whole."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.nnunet.image_files import ImageCase

# Names are nnU-Net's; its ensembling and postprocessing read the first two.
DATASET_FILE, PLANS_FILE, SETTINGS_FILE = "dataset.json", "plans.json", "predict_from_raw_data_args.json"
_OF_NNUNET = {DATASET_FILE, PLANS_FILE, SETTINGS_FILE, "summary.json", "postprocessing.json"}
PROBABILITIES, PROPERTIES = ".npz", ".pkl"
_PARTIAL = ".partial"
# Entries of the settings by which predictions differ; one that an older record lacks was not to be chosen then.
_DECISIVE = (
    *("trainer", "plans", "configuration", "checkpoints", "tile_step_size", "use_mirroring"),
    *("num_iters", "num_shifts"),
)
# Predictions are no smaller than this part of the image of one channel, probabilities of each class than that: what
# does not even leave so much space cannot end well.
_LEAST_LABELS, _LEAST_PROBABILITIES = 1 / 500, 1 / 20
LEAST_SPACE = 1 << 20


@dataclass(frozen=True)
class Outputs:
    """Files of predictions.

    Attributes:
        folder: where they are.
        file_ending: of segmentations.
        probabilities: whether each case has them, too.
        readable: whether a file holds a whole segmentation.
    """

    folder: Path
    file_ending: str
    probabilities: bool
    readable: Callable[[Path], bool]

    def files(self, case: str) -> list[Path]:
        """All files of a case, the segmentation last: where it is, the others are."""
        endings = [PROBABILITIES, PROPERTIES] if self.probabilities else []
        return [self.folder / f"{case}{ending}" for ending in (*endings, self.file_ending)]

    def complete(self, case: str) -> bool:
        """Whether all files of a case are there and whole."""
        *others, segmentation = self.files(case)
        return all(file.is_file() for file in (*others, segmentation)) and (
            all(_is_whole(file) for file in others) and self.readable(segmentation)
        )

    def check(
        self, cases: Sequence[ImageCase], settings: Mapping[str, Any], plans: Mapping[str, Any]
    ) -> list[ImageCase]:
        """Cases that are still to be predicted.

        Raises:
            UserError: the folder cannot be written, or holds files or predictions of something else.
        """
        check_folder(self.folder)
        there = {path.name for path in self.folder.iterdir() if path.name[0] != "."} if self.folder.is_dir() else set()
        endings = (self.file_ending, PROBABILITIES, PROPERTIES)
        foreign = sorted(there - _OF_NNUNET - {f"{case.name}{ending}" for case in cases for ending in endings})
        if foreign:
            raise UserError(
                f"{self.folder} holds files that are none of these cases' predictions ({first_few(foreign)}). Name an "
                "empty folder with -o, or move them away"
            )
        left = [case for case in cases if not self.complete(case.name)]
        if len(left) < len(cases):
            self._check_origin(settings, plans)
        return left

    def check_space(self, cases: Sequence[ImageCase], num_classes: int) -> None:
        """Check that what is to be written can fit.

        Raises:
            UserError: it cannot.
        """
        share = _LEAST_LABELS + (_LEAST_PROBABILITIES * num_classes if self.probabilities else 0)
        needed = LEAST_SPACE + int(share * sum(case.files[0].stat().st_size for case in cases))
        free = free_space(self.folder)
        if cases and free < needed:
            raise UserError(
                f"{self.folder} has {free / 1e6:.0f} MB of free space, predictions of {len(cases)} cases take at least "
                f"{needed / 1e6:.0f} MB. Free space, or name another folder with -o"
            )

    def prepare(self, settings: Mapping[str, Any], description: Mapping[str, Any], plans: Mapping[str, Any]) -> None:
        """Make the folder, clear away what a kill left, and write what nnU-Net's commands expect there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for draft in self.folder.glob(f".*{_PARTIAL}"):
            shutil.rmtree(draft) if draft.is_dir() else draft.unlink()
        contents = {DATASET_FILE: description, PLANS_FILE: plans, SETTINGS_FILE: settings}
        for name, content in contents.items():
            write_text_atomically(self.folder / name, json.dumps(content, indent=4))

    def write(self, case: str, export: Callable[[str], None]) -> None:
        """Let ``export`` write the files of a case, given their path without ending; they appear whole.

        Raises:
            OSError: what was written cannot be read again, as on a full disk.
        """
        draft = self.folder / f".{case}.{os.getpid()}{_PARTIAL}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            export(str(draft / case))
            if not Outputs(draft, self.file_ending, self.probabilities, self.readable).complete(case):
                raise OSError(f"{case}: what was written cannot be read again")
            for file in self.files(case):
                (draft / file.name).replace(file)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _check_origin(self, settings: Mapping[str, Any], plans: Mapping[str, Any]) -> None:
        mend = "Name an empty folder with -o"
        record, plans_file = self.folder / SETTINGS_FILE, self.folder / PLANS_FILE
        before = load_json_object(record, mend) if record.is_file() else {}
        if "checkpoints" in before:
            different = [key for key in _DECISIVE if before.get(key) != settings[key]]
        else:  # of nnUNetv2_predict, which says nothing but the plans
            different = [] if plans_file.is_file() and load_json_object(plans_file, mend) == plans else ["plans"]
        if different:
            key = different[0]
            values = f" (it was {before[key]})" if key in before and key != "checkpoints" else ""
            raise UserError(
                f"{self.folder} holds predictions of another model or with other settings: {', '.join(different)} "
                f"differ{'s' if len(different) == 1 else ''}{values}. {mend}"
            )


def free_space(folder: Path) -> int:
    """Bytes left where a folder is or will be."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(existing).free


def check_folder(folder: Path) -> None:
    """Check that files can be written to a folder, which may not be there yet.

    Raises:
        UserError: they cannot.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file. Name a folder with -o")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"{existing} is a file, so there can be no {folder}. Name another folder with -o")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"you may not write in {existing}. Change its permissions, or name another folder with -o")


def _is_whole(file: Path) -> bool:
    if file.suffix == PROBABILITIES:
        return zipfile.is_zipfile(file)  # its directory is written last
    with file.open("rb") as stream:
        stream.seek(-min(1, file.stat().st_size), os.SEEK_END)
        return stream.read() == b"."  # the last byte of any pickle
