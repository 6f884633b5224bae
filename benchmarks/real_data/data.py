"""The data sets of the study: where they are, how they are planned and how long a training on them is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.folds import NUMBER_OF_FOLDS, Fold, default_folds
from factorizer_nnunet.nnunet.raw_dataset import NAME_PATTERN


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set and its budgets.

    Attributes:
        key: its name in results, and its folder in the folder of all data sets.
        title: in short tables.
        folder: its name in nnU-Net.
        source: for the page.
        configurations: nnU-Net's, each with its guess of the CPU seconds that an iteration of nnU-Net's U-Net takes.
        memory_target_gb: for nnU-Net's planner: small patches, which one core can train on.
        short: iterations of the short budget; the long one has ten times as many.
        tolerance_mm: of surface Dice, about the side of a voxel.
        patient: a pattern whose first group in a case's name is the patient; None if every case is one.
        note: what a reader of the numbers must know.
    """

    key: str
    title: str
    folder: str
    source: str
    configurations: dict[str, float]
    memory_target_gb: float
    short: int
    tolerance_mm: float
    patient: str | None = None
    note: str = ""

    @property
    def number(self) -> int:
        """nnU-Net's ID of the data set."""
        return int(self.folder.removeprefix("Dataset").partition("_")[0])

    def folds(self, cases: Iterable[str]) -> list[Fold]:
        """Five folds, which never split a patient; without patients they are nnU-Net's."""
        of_patient: dict[str, list[str]] = {}
        for case in sorted(cases):
            of_patient.setdefault(patient_of(case, self.patient), []).append(case)
        return [
            {part: [case for patient in patients for case in of_patient[patient]] for part, patients in fold.items()}
            for fold in default_folds(of_patient)
        ]


def patient_of(case: str, pattern: str | None) -> str:
    """The patient of a case.

    Raises:
        UserError: the name of the case has none.
    """
    if pattern is None:
        return case
    match = re.match(pattern, case)
    if match is None:
        raise UserError(f"the name of the case {case} does not begin with a patient, {pattern}")
    return match[1]


DATA_SETS = {
    data.key: data
    for data in (
        DataSet(
            key="brats_2mm",
            title="BraTS, 2 mm",
            folder="Dataset501_BraTS2mm",
            source="18 patients of BraTS 2018 (Menze et al., IEEE TMI 2015), four channels, averaged to 2 mm",
            configurations={"3d_fullres": 4.5},
            memory_target_gb=0.5,
            short=150,
            tolerance_mm=2.0,
            note="Blurred and coarse images keep the black background out of which the skull was cut. Before revision "
            "97081bd it was smeared, too, which changes nnU-Net's normalization: then the default had a mean Dice of "
            "0.218 on blurred images and of 0.284 at half resolution, nnU-Net's U-Net 0.434 and 0.460 (fold 0, in "
            "these files at revision 713384d). This was changed after these results were known.",
        ),
        DataSet(
            key="hippocampus",
            title="hippocampus",
            folder="Dataset502_Hippocampus",
            source="100 cases of the Medical Segmentation Decathlon, Task04 (Simpson et al., arXiv 1902.09063)",
            configurations={"3d_fullres": 0.38},
            memory_target_gb=0.05,
            short=400,
            tolerance_mm=1.0,
            note="Each volume counts as a patient; some may be the left and the right side of one. Our learning rate "
            "was chosen on fold 0 of this data set, see [there](hippocampus.md).",
        ),
        DataSet(
            key="acdc",
            title="ACDC, heart",
            folder="Dataset503_ACDC",
            source="80 volumes of 40 patients of ACDC 2017 (Bernard et al., IEEE TMI 2018), two phases each",
            configurations={"3d_fullres": 4.0, "2d": 3.0},
            memory_target_gb=0.3,
            short=150,
            tolerance_mm=1.5,
            patient=r"(patient\d+)_",
            note="Voxel sizes are nominal: Dice is meaningful, distances in mm are not.",
        ),
        DataSet(
            key="la_x2",
            title="left atrium",
            folder="Dataset504_LeftAtriumX2",
            source="50 LGE-MR volumes of the 2018 Left Atrium challenge (Xiong et al., MedIA 2021), cropped, averaged "
            "over 2 × 2 × 2 voxels",
            configurations={"3d_fullres": 3.0},
            memory_target_gb=0.3,
            short=150,
            tolerance_mm=1.25,
            note="Voxel sizes are nominal: Dice is meaningful, distances in mm are not. Each volume counts as a "
            "patient, but some were scanned before and after treatment, and the data do not say which: a few pairs of "
            "labels are nearly the same. So some patients are in training and in validation, which raises the Dice of "
            "all networks.",
        ),
    )
}


def digest(source: Path) -> str:
    """Of a raw data set: names and sizes of its training files, which tell whether two are the same."""
    files = [source / "dataset.json", *(source / "imagesTr").glob("[!.]*"), *(source / "labelsTr").glob("[!.]*")]
    lines = sorted(f"{file.relative_to(source)} {file.stat().st_size}" for file in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def setup_title(setup: str) -> str:
    """Of a data set with a configuration, ``DATA/CONFIGURATION``, in short tables and figures."""
    data, _, configuration = setup.partition("/")
    title = DATA_SETS[data].title if data in DATA_SETS else data
    return title if configuration in ("", "3d_fullres") else f"{title}, {configuration}"


def data_set(name: str, parent: Path) -> tuple[DataSet, Path]:
    """A data set and its folder: one of ``DATA_SETS`` below ``parent``, or any folder in nnU-Net's raw layout.

    Raises:
        UserError: it is neither, or has no labels.
    """
    known = DATA_SETS.get(name)
    path = Path(name) if known is None else parent / name
    if not (path / "dataset.json").is_file():
        expected = f"one of {', '.join(DATA_SETS)} in {parent} (see --data), or a folder DatasetNNN_Name"
        raise UserError(f"{path} has no dataset.json: expected {expected}")
    dataset = load_json_object(path / "dataset.json", "Correct it")
    ending = dataset.get("file_ending")
    if not isinstance(ending, str):
        raise UserError(f"{path / 'dataset.json'} has no file_ending. Add it, as nnU-Net expects")
    cases = len(list((path / "labelsTr").glob(f"[!.]*{ending}")))
    if cases < NUMBER_OF_FOLDS:
        raise UserError(f"{path / 'labelsTr'} has {cases} labels {ending}: five folds need {NUMBER_OF_FOLDS} cases")
    if known is not None:
        return known, path
    path = path.resolve()
    if NAME_PATTERN.fullmatch(path.name) is None:
        raise UserError(f"{path} is not named as nnU-Net names data sets: DatasetNNN_Name")
    return (
        DataSet(
            key=path.name,
            title=path.name,
            folder=path.name,
            source=f"{cases} cases",
            configurations={"3d_fullres": 4.0},
            memory_target_gb=0.5,
            short=150,
            tolerance_mm=1.0,
        ),
        path,
    )
