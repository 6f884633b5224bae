"""Trees of the BraTS releases and of MSD's brain tumors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from nifti_files import BRATS_AFFINE, axes, intensities, labels, write
from tree_builder import SHAPE, Builder

POST_SHAPE = (14, 12, 9)  # after treatment the grid is another one
OLD = ("_t1", "_t1ce", "_t2", "_flair")
NEW = ("-t1n", "-t1c", "-t2w", "-t2f")


def put(
    build: Builder,
    folder: str,
    case: str,
    values: tuple[int, ...] | None,
    *,
    endings: tuple[str, ...] = NEW,
    label: str = "-seg",
    ending: str = ".nii.gz",
    patient: str | None = None,
    shape: tuple[int, int, int] = SHAPE,
    affine: np.ndarray = BRATS_AFFINE,
) -> None:
    """One case in a folder of its name; ``values`` None: unlabelled."""
    stem = f"{folder}/{case}/{case}"
    images = {stem + end: intensities(case + end, shape) for end in endings}
    mask = None if values is None else (stem + label, labels(case, shape, values))
    build.case(case, images, mask, affine=affine, ending=ending, patient=patient)


def timed(build: Builder, folder: str, case: str, values: tuple[int, ...] | None, **how: object) -> None:
    """A case whose name ends with a time point."""
    put(build, folder, case, values, patient=case.rsplit("-", 1)[0], **how)


def brats_2018_2019(build: Builder, prefix: str, root: str) -> None:
    old = partial(put, build, endings=OLD, label="_seg")
    old(f"{root}_Training/HGG", f"{prefix}_2013_1_1", (1, 2, 4), patient=f"{prefix}_2013_1")
    old(f"{root}_Training/HGG", f"{prefix}_TCIA01_131_1", (1, 2, 4), patient=f"{prefix}_TCIA01_131")
    old(f"{root}_Training/LGG", f"{prefix}_TCIA09_141_1", (1, 2), patient=f"{prefix}_TCIA09_141")
    old(f"{root}_Validation", f"{prefix}_CBICA_AAM_1", None, patient=f"{prefix}_CBICA_AAM")
    build.extra(f"{root}_Training/survival_data.csv", f"{root}_Training/HGG/.DS_Store")


def brats_2020(build: Builder) -> None:
    """The copy that most users have: uncompressed, with the label of case 355 under its old name; grades in a table."""
    root = "BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData"
    old = partial(put, build, endings=OLD, label="_seg", ending=".nii")
    old(root, "BraTS20_Training_001", (1, 2, 4))
    old(root, "BraTS20_Training_002", (1, 2, 4))
    old(root, "BraTS20_Training_355", None)
    build.label("BraTS20_Training_355", f"{root}/BraTS20_Training_355/W39_1998.09.19_Segm", (1, 2, 4), ".nii")
    old("BraTS2020_ValidationData/MICCAI_BraTS2020_ValidationData", "BraTS20_Validation_001", None)
    build.extra(f"{root}/survival_info.csv")
    build.text(
        f"{root}/name_mapping.csv",
        "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID,"
        "BraTS_2020_subject_ID\n"
        "HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,NA,BraTS19_CBICA_AAB_1,BraTS20_Training_001\n"
        "LGG,Brats17_TCIA_420_1,Brats18_TCIA09_420_1,TCGA-DU-6404,BraTS19_TCIA09_420_1,BraTS20_Training_002\n",
    )


def brats_2021(build: Builder) -> None:
    root = "RSNA_ASNR_MICCAI_BraTS2021"
    old = partial(put, build, endings=OLD, label="_seg")
    old(f"{root}_TrainingData_16July2021", "BraTS2021_00000", (1, 2, 4))
    old(f"{root}_TrainingData_16July2021", "BraTS2021_00002", (1, 2, 4))
    old(f"{root}_ValidationData", "BraTS2021_00001", None)
    build.extra("BraTS2021_00495.tar")


def brats_2023(build: Builder, task: str) -> None:
    root = f"ASNR-MICCAI-BraTS2023-{task}-Challenge"
    timed(build, f"{root}-TrainingData", f"BraTS-{task}-00002-000", (1, 2, 3))
    timed(build, f"{root}-TrainingData", f"BraTS-{task}-00002-001", (1, 2, 3))
    timed(build, f"{root}-TrainingData", f"BraTS-{task}-00005-000", (1, 2, 3))
    timed(build, f"{root}-ValidationData", f"BraTS-{task}-00001-000", None)


def brats_2023_ssa(build: Builder) -> None:
    """The second version of the training part is used; TCIA's cases without glioma are ignored."""
    root = "ASNR-MICCAI-BraTS2023-SSA-Challenge"
    first, case = f"{root}-TrainingData", "BraTS-SSA-00002-000"
    build.nifti(f"{first}/{case}/{case}-seg", labels("first", SHAPE, (1, 2)), BRATS_AFFINE, ".nii.gz")
    timed(build, f"{first}_V2", case, (1, 2, 3))
    timed(build, f"{first}_V2", "BraTS-SSA-00007-000", (1, 2, 3))
    timed(build, f"{root}-ValidationData", "BraTS-SSA-00126-000", None)
    other = "BraTS-Africa/51_OtherNeoplasms/BraTS-SSA-00009-000/BraTS-SSA-00009-000"
    for end in (*NEW, "-seg"):
        build.nifti(other + end, labels(end, SHAPE, (1, 2, 3)), BRATS_AFFINE, ".nii.gz")


def brats_2023_men(build: Builder, root: str = "ASNR-MICCAI-BraTS2023-MEN-Challenge") -> None:
    """A nested folder, and corrections in a separate folder."""
    timed(build, f"{root}-TrainingData/BraTS-MEN-Train", "BraTS-MEN-00004-000", (1, 2, 3))
    timed(build, f"{root}-TrainingData/BraTS-MEN-Train", "BraTS-MEN-00008-000", (1, 2, 3))
    timed(build, f"{root}-ValidationData", "BraTS-MEN-00006-000", None)
    case = "BraTS-MEN-00008-000"
    build.label(case, f"BraTS-MEN-TRAIN-FIX-V4/{case}/{case}-seg", (1, 2, 3))


def brats_2024_gli(build: Builder) -> None:
    """After treatment: time points from 100 on, another grid, and two releases."""
    post = partial(timed, build, shape=POST_SHAPE)
    post("training_data1_v2", "BraTS-GLI-00005-100", (1, 2, 3, 4))
    post("training_data1_v2", "BraTS-GLI-00005-101", (2, 3, 4))
    post("training_data_additional", "BraTS-GLI-02073-101", (1, 2, 3, 4))
    post("validation_data", "BraTS-GLI-02064-100", None)
    first = "training_data1/BraTS-GLI-00005-100/BraTS-GLI-00005-100-seg"
    build.nifti(first, labels("first", POST_SHAPE, (1, 2)), BRATS_AFFINE, ".nii.gz")
    build.extra("BraTS-PTG supplementary demographic information and metadata.xlsx")


def brats_2025_gli(build: Builder) -> None:
    """Before and after treatment."""
    timed(build, "BraTS2025-GLI-PRE-Challenge-TrainingData", "BraTS-GLI-00000-000", (1, 2, 3))
    timed(build, "BraTS2025-GLI-PRE-Challenge-TrainingData", "BraTS-GLI-00005-000", (1, 2, 3))
    brats_2024_gli(build)


def brats_2024_ssa(build: Builder, year: int) -> None:
    timed(build, "ASNR-MICCAI-BraTS2023-SSA-Challenge-TrainingData_V2", "BraTS-SSA-00002-000", (1, 2, 3))
    timed(build, "ASNR-MICCAI-BraTS2023-SSA-Challenge-TrainingData_V2", "BraTS-SSA-00007-000", (1, 2, 3))
    timed(build, f"BraTS{year}-SSA-Challenge-ValidationData", "BraTS-SSA-00126-000", None)


def brats_men_rt(build: Builder, root: str = "") -> None:
    """One modality, a grid for each case, and a case that was also distributed separately."""

    def own_grid(folder: str, case: str, values: tuple[int, ...] | None, spacing: tuple[float, float, float]) -> None:
        put(
            build,
            root + folder,
            case,
            values,
            endings=("_t1c",),
            label="_gtv",
            patient=case.rsplit("-", 1)[0],
            shape=(14, 16, 9),
            affine=axes(spacing, degrees=4),
        )

    own_grid("BraTS-MEN-RT-Train-v2", "BraTS-MEN-RT-0004-1", (1,), (0.9, 0.9, 1.5))
    own_grid("BraTS-MEN-RT-Train-v2", "BraTS-MEN-RT-0402-1", (1,), (0.5, 0.5, 3.0))
    own_grid("BraTS-MEN-RT-Val-v1", "BraTS-MEN-RT-0183-1", None, (1.0, 1.0, 1.2))
    again = "BraTS-MEN-RT-0402-1/BraTS-MEN-RT-0402-1"
    affine = axes((0.5, 0.5, 3.0), degrees=4)
    image = build.nifti(f"{again}_t1c", intensities("again", (14, 16, 9)), affine, ".nii.gz")
    mask = build.nifti(f"{again}_gtv", labels("again", (14, 16, 9), (1,)), affine, ".nii.gz")
    build.tree.images["BraTS-MEN-RT-0402-1"] = (image,)
    build.tree.labels["BraTS-MEN-RT-0402-1"] = mask


def brats_2024_met(build: Builder) -> None:
    """Parts, and corrections of the second one."""
    root = "MICCAI-BraTS2024-MET-Challenge"
    timed(build, f"{root}-Training_1", "BraTS-MET-00001-000", (1, 2, 3))
    timed(build, f"{root}-Training_1", "BraTS-MET-00001-001", (1, 2, 3))
    timed(build, f"{root}-TrainingData_2", "BraTS-MET-00232-000", (1, 2, 3))
    case = "BraTS-MET-00232-000"
    build.label(case, f"{root}-TrainingData_2-fixed-cases/{case}/{case}-seg", (1, 2, 3))
    timed(build, f"{root}-Validation", "BraTS-MET-00500-000", None)


def brats_2025_met(build: Builder) -> None:
    """A nested folder with spaces, cases on their own grids with a dummy T2, corrected labels."""
    root = "MICCAI-LH-BraTS2025-MET-Challenge"
    timed(build, f"{root}-Training", "BraTS-MET-00001-000", (1, 2, 3))
    native = partial(timed, build, shape=POST_SHAPE, affine=axes((0.9, 0.9, 1.5), degrees=5))
    native(f"{root}-Training/UCSD - Training", "BraTS-MET-01184-001", (1, 2, 3, 4))
    dummy = build.tree.images["BraTS-MET-01184-001"][2]
    write(dummy, np.zeros(POST_SHAPE, "int16"), axes((0.9, 0.9, 1.5), degrees=5))
    timed(build, f"{root}-Training/UCSD - Training", "BraTS-MET-01184-002", (1, 2, 3, 8))
    case = "BraTS-MET-01184-002"
    build.label(case, f"{root}-corrected-labels_batch1/{case}/{case}-seg", (1, 2, 3, 4))
    timed(build, f"{root}-Validation", "BraTS-MET-00500-000", None)


def brats_ped(build: Builder, year: int) -> None:
    """An uncompressed image named .nii.gz, and files left by macOS."""
    root = f"BraTS-PEDs{year}"
    timed(build, f"{root}_Training", "BraTS-PED-00002-000", (1, 2, 3, 4))
    timed(build, f"{root}_Training", "BraTS-PED-00255-000", (1, 2, 4))
    plain = build.tree.images["BraTS-PED-00255-000"][1]
    write(plain, intensities("plain", SHAPE), plain=True)
    timed(build, f"{root}_Validation", "BraTS-PED-00300-000", None)
    build.extra(
        f"__MACOSX/{root}_Training/BraTS-PED-00002-000/._BraTS-PED-00002-000-t1c.nii.gz",
        f"{root}_Training/BraTS-PED-00002-000/._BraTS-PED-00002-000-t1c.nii.gz",
    )


def brats_goat(build: Builder, year: int) -> None:
    """Training folders also contain unlabelled cases."""
    put(build, f"MICCAI{year}-BraTS-GoAT-TrainingData-With-GroundTruth", "BraTS-GoAT-02235", (1, 2, 3))
    put(build, f"MICCAI{year}-BraTS-GoAT-TrainingData-With-GroundTruth", "BraTS-GoAT-02236", (1, 2, 3))
    put(build, f"MICCAI{year}-BraTS-GoAT-TrainingData-With-GroundTruth", "BraTS-GoAT-00000", None)
    put(build, f"MICCAI{year}-BraTS-GoAT-ValidationData", "BraTS-GoAT-00001", None)


def msd_brain(build: Builder) -> None:
    """Four modalities along the fourth axis of one file."""
    for case, part in (("BRATS_001", "Tr"), ("BRATS_457", "Tr"), ("BRATS_485", "Ts")):
        values = intensities(case, (*SHAPE, 4), "float32")
        image = build.nifti(f"Task01_BrainTumour/images{part}/{case}", values, np.eye(4), ".nii.gz")
        build.tree.images[case] = (image,) * 4
        build.tree.patients[case] = case
        if part == "Tr":
            mask = labels(case, SHAPE, (1, 2, 3))
            file = build.nifti(f"Task01_BrainTumour/labelsTr/{case}", mask, np.eye(4), ".nii.gz")
            build.tree.labels[case] = file
    build.extra("Task01_BrainTumour/dataset.json", "Task01_BrainTumour/imagesTr/._BRATS_001.nii.gz")


BRATS_TREES: dict[str, Callable[[Builder], None]] = {
    "brats2018": partial(brats_2018_2019, prefix="Brats18", root="MICCAI_BraTS_2018_Data"),
    "brats2019": partial(brats_2018_2019, prefix="BraTS19", root="MICCAI_BraTS_2019_Data"),
    "brats2020": brats_2020,
    "brats2021": brats_2021,
    "brats2023-gli": partial(brats_2023, task="GLI"),
    "brats2023-ssa": brats_2023_ssa,
    "brats2023-men": brats_2023_men,
    "brats2023-met": partial(brats_2023, task="MET"),
    "brats2023-ped": partial(brats_2023, task="PED"),
    "brats2024-gli": brats_2024_gli,
    "brats2024-ssa": partial(brats_2024_ssa, year=2024),
    "brats2024-men-rt": brats_men_rt,
    "brats2024-met": brats_2024_met,
    "brats2024-ped": partial(brats_ped, year=2024),
    "brats2024-goat": partial(brats_goat, year=2024),
    "brats2025-gli": brats_2025_gli,
    "brats2025-met": brats_2025_met,
    "brats2025-ssa": partial(brats_2024_ssa, year=2025),
    "brats2025-men": partial(brats_2023_men, root="BraTS2025-MEN-Challenge"),
    "brats2025-men-rt": partial(brats_men_rt, root="BraTS2025-MEN-RT-Challenge/"),
    "brats2025-ped": partial(brats_ped, year=2025),
    "brats2025-goat": partial(brats_goat, year=2025),
    "msd-brain": msd_brain,
}
