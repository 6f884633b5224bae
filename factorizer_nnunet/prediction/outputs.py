"""The output folder of a prediction: whose predictions it has, which cases are complete, and writing a case."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.calibration.logit_scaling import LogitScaling
from factorizer_nnunet.core.atomic_files import clear_drafts, draft_of, remove_draft, write_text_atomically
from factorizer_nnunet.core.disk import free_space
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Stamp
from factorizer_nnunet.core.json_files import load_json_object, read_complete_json
from factorizer_nnunet.core.set_aside import is_set_aside
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE
from factorizer_nnunet.nnunet.image_files import ImageCase
from factorizer_nnunet.nnunet.integrity import is_complete
from factorizer_nnunet.nnunet.model_folder import PLANS_FILE, PREDICTION_FILE, RULES_KEY, SUMMARY_FILE
from factorizer_nnunet.nnunet.pass_record import QUALITY_FILES, passes_file
from factorizer_nnunet.nnunet.prediction_record import RECORDS, record_prediction
from factorizer_nnunet.prediction.uncertainty import MAPS_FOLDER, MAPS_RECORD, map_file, map_names

# Files that nnU-Net's commands write next to predictions; its ensembling and postprocessing read the first two.
_OF_NNUNET = {DATASET_FILE, PLANS_FILE, PREDICTION_FILE, SUMMARY_FILE, "postprocessing.json"}
PROBABILITIES, PROPERTIES = ".npz", ".pkl"
_STAMP = "settings_sha256"  # entry in the folder's record, our own
# Settings that change predictions. Older records lack some, which could not be chosen then.
DECISIVE = (
    *("trainer", "plans", "configuration", "checkpoints", "tile_step_size", "use_mirroring"),
    *("num_iters", "num_shifts", "skip_empty_tiles", "ensemble_with", RULES_KEY),
)
# Lower bounds on the size of predictions, and of the probabilities of each class, as fractions of one image file:
# with less free space than that, writing would surely fail.
_LEAST_LABELS, _LEAST_PROBABILITIES = 1 / 500, 1 / 20
_LEAST_SPACE = 1 << 20


@dataclass(frozen=True)
class Outputs:
    """Files of predictions.

    Attributes:
        folder: of the predictions.
        file_ending: of segmentations.
        probabilities: whether each case has them, too.
        model: stamp of the model and its settings.
        passes: whether each case has a record of its passes.
        scalings: what calibrates the probabilities in the maps that each case has, by region; None: there are no maps.
        regions: whose probabilities maps may have.
    """

    folder: Path
    file_ending: str
    probabilities: bool
    model: Stamp
    passes: bool = False
    scalings: Mapping[str, LogitScaling] | None = None
    regions: Sequence[str] = ()

    @property
    def needs_logits(self) -> bool:
        """Whether labels alone are not enough to write a case."""
        return self.probabilities or self.scalings is not None

    @property
    def needs_passes(self) -> bool:
        """Whether the passes of a case must be compared."""
        return self.passes or self.scalings is not None

    def files(self, case: str) -> list[Path]:
        """The files of a case that are asked for. The segmentation is last: if it exists, so do the others."""
        return self._files(case, self.probabilities, self.passes, self.scalings)

    def possible_files(self, case: str) -> list[Path]:
        """The files that predictions of a case may have left, with whatever options; the segmentation is last."""
        return self._files(case, True, True, self.regions)

    def _files(self, case: str, probabilities: bool, passes: bool, regions: Iterable[str] | None) -> list[Path]:
        endings = [PROBABILITIES, PROPERTIES] if probabilities else []
        files = [self.folder / f"{case}{ending}" for ending in endings]
        files += [passes_file(self.folder, case)] if passes else []
        maps = [] if regions is None else map_names(regions)
        files += [self.folder / MAPS_FOLDER / map_file(case, name) for name in maps]
        return [*files, self.folder / f"{case}{self.file_ending}"]

    def check_folder(self, cases: Sequence[ImageCase]) -> None:
        """Check that the folder can be written and contains nothing but predictions of these cases.

        Raises:
            UserError: it cannot, or contains other files.
        """
        check_folder(self.folder)
        if not self.folder.is_dir():
            return
        endings = (self.file_ending, PROBABILITIES, PROPERTIES)
        own = {*_OF_NNUNET, *QUALITY_FILES, MAPS_FOLDER}
        own |= {f"{case.name}{ending}" for case in cases for ending in endings}
        existing = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
        foreign = sorted(name for name in existing - own if not is_set_aside(name))
        if foreign:
            raise UserError(
                f"{self.folder} contains files that are not predictions of these cases ({first_few(foreign)}). Name an "
                "empty folder with -o, or move them away"
            )

    def check_origin(self, settings: Mapping[str, Any], plans: Mapping[str, Any]) -> None:
        """Check that existing predictions are of this model with these settings.

        Raises:
            UserError: they are not.
        """
        fix = "Name an empty folder with -o"
        record, plans_file = self.folder / PREDICTION_FILE, self.folder / PLANS_FILE
        before = load_json_object(record, fix) if record.is_file() else {}
        if "checkpoints" in before:
            different = [key for key in DECISIVE if before.get(key) != settings.get(key)]
        else:  # written by nnUNetv2_predict, which records only the plans
            different = [] if plans_file.is_file() and load_json_object(plans_file, fix) == plans else ["plans"]
        if different:
            key = different[0]
            values = f" (it was {before[key]})" if isinstance(before.get(key), str | float | int) else ""
            raise UserError(
                f"{self.folder} has predictions of another model or with other settings. Different: "
                f"{', '.join(different)}{values}. {fix}"
            )

    def check_maps(self) -> None:
        """Check that existing maps have probabilities that were calibrated as those to come.

        Raises:
            UserError: they were not.
        """
        record = self.folder / MAPS_FOLDER / MAPS_RECORD
        if self.scalings is None or not record.exists():
            return
        before = load_json_object(record, "Name an empty folder with -o")
        if before != _as_json(self.scalings):
            raise UserError(f"{record.parent} has maps of another calibration. Name an empty folder with -o")

    def check_space(self, cases: Sequence[ImageCase], num_classes: int) -> None:
        """Check that there is space for the predictions of these cases.

        Raises:
            UserError: there is too little.
        """
        share = _LEAST_LABELS + (_LEAST_PROBABILITIES * num_classes if self.probabilities else 0)
        needed = _LEAST_SPACE + int(share * sum(case.files[0].stat().st_size for case in cases))
        free = free_space(self.folder)
        if cases and free < needed:
            raise UserError(
                f"{self.folder} has {free / 1e6:.0f} MB of free space, predictions of {len(cases)} cases take at least "
                f"{needed / 1e6:.0f} MB. Free space, or name another folder with -o"
            )

    def prepare(self, settings: Mapping[str, Any], dataset_json: Mapping[str, Any], plans: Mapping[str, Any]) -> None:
        """Create the folder, remove what killed commands left, and write what nnU-Net's commands expect there."""
        (self.folder / RECORDS).mkdir(parents=True, exist_ok=True)
        if self.scalings is not None:
            (self.folder / MAPS_FOLDER).mkdir(exist_ok=True)
            write_text_atomically(self.folder / MAPS_FOLDER / MAPS_RECORD, json.dumps(_as_json(self.scalings)))
        clear_drafts(self.folder)
        clear_drafts(self.folder / RECORDS)
        record = {**settings, _STAMP: self.model.sha256}
        for name, content in {DATASET_FILE: dataset_json, PLANS_FILE: plans, PREDICTION_FILE: record}.items():
            write_text_atomically(self.folder / name, json.dumps(content, indent=4))

    def write(
        self,
        case: str,
        images: Mapping[str, Stamp],
        export: Callable[[str], None],
        readable: Callable[[Path], bool],
        warnings: Sequence[str] = (),
    ) -> None:
        """Write a case and the record of its images; its files appear complete.

        Args:
            case: its name.
            images: stamps of what it was predicted from.
            export: writes the files, given their path without ending.
            readable: whether a file contains a complete segmentation.
            warnings: about the images, for the record.

        Raises:
            OSError: what was written cannot be read again, for instance because the disk is full.
            UserError: another command writes other predictions to the folder.
        """
        draft = draft_of(self.folder / case)
        draft.mkdir()
        try:
            export(str(draft / case))
            *others, segmentation = written = [draft / file.name for file in self.files(case)]
            if not (segmentation.is_file() and all(map(is_complete, others)) and readable(segmentation)):
                raise OSError(f"{case}: what was written cannot be read again")
            settings = read_complete_json(self.folder / PREDICTION_FILE) or {}
            if settings.get(_STAMP) != self.model.sha256:
                raise UserError(
                    f"another command predicts with other settings into {self.folder}: name another with -o"
                )
            # First the record, by stamps of the drafts, which a renaming keeps: killed in between, files are missing.
            record_prediction(self.folder, case, images, self.model, written, warnings)
            for file, final in zip(written, self.files(case), strict=True):
                file.replace(final)
        finally:
            remove_draft(draft)


def check_folder(folder: Path) -> None:
    """Check that files can be written to a folder, which need not exist yet.

    Raises:
        UserError: they cannot.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file. Name a folder with -o")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"{existing} is a file, so {folder} cannot be created. Name another folder with -o")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"you may not write in {existing}. Change its permissions, or name another folder with -o")


def _as_json(scalings: Mapping[str, LogitScaling]) -> dict[str, Any]:
    return {region: asdict(scaling) for region, scaling in scalings.items()}
