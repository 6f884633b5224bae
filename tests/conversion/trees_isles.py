"""Trees of the ISLES releases and of ATLAS."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from nifti_files import axes, head, intensities, labels
from tree_builder import SHAPE, Builder

FLAIR_SHIFT_MM = 3.0  # of the head in FLAIR against DWI, along x; what registration is to find
DWI_SHAPE = (40, 40, 20)
DWI_AFFINE = axes((2.0, 2.0, 2.5), origin=(-40.0, -40.0, -5.0))
FLAIR_SHAPE = (80, 80, 12)
FLAIR_AFFINE = axes((1.0, 1.0, 4.0), origin=(-40.0, -40.0, -4.0))
CT_SHAPE = (18, 16, 9)
CT_AFFINE = axes((0.4, 0.4, 2.0), degrees=12)
SISS = ("MR_Flair", "MR_T1", "MR_T2", "MR_DWI")
SPES = ("MR_T1c", "MR_T2", "MR_DWI", "MR_CBF", "MR_CBV", "MR_TTP", "MR_Tmax")
OUTCOME = ("MR_ADC", "MR_MTT", "MR_rCBF", "MR_rCBV", "MR_Tmax", "MR_TTP")
PERFUSION_CT = ("CT", "CT_CBF", "CT_CBV", "CT_MTT", "CT_Tmax")


def archived(
    build: Builder,
    name: str,
    folder: str,
    sequences: tuple[str, ...],
    first: int,
    *,
    labelled: bool = True,
    brand: str = "VSD",
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> None:
    """A case of the archives VSD and SMIR: each file in a folder of its name, numbered from ``first``."""

    def file(sequence: str, number: int) -> str:
        stem = f"{brand}.Brain.XX.O.{sequence}.{number}"
        return f"{folder}/{stem}/{stem}"

    images = {file(s, first + i): intensities(name + s, SHAPE, "float32") for i, s in enumerate(sequences)}
    label = (file("OT", first + 20), labels(name, SHAPE, (1,), "uint16")) if labelled else None
    build.case(name, images, label, affine=axes(spacing), ending=".nii")


def isles_2015_siss(build: Builder) -> None:
    """Training and test part both count from 1."""
    _siss(build, "SISS2015_Training", "SISS2015_Testing")


def isles_2015_siss_nested(build: Builder) -> None:
    """Layout of an old archive."""
    _siss(build, "SISS2015_Training/SISS2015/Training", "SISS2015_Testing/SISS2015/Testing")


def _siss(build: Builder, training: str, testing: str) -> None:
    archived(build, "siss_1", f"{training}/1", SISS, 70613)
    archived(build, "siss_2", f"{training}/2", SISS, 70713)
    archived(build, "siss_test_1", f"{testing}/1", SISS, 70813, labelled=False)


def isles_2015_spes(build: Builder) -> None:
    spes = partial(archived, build, sequences=SPES, spacing=(2.0, 2.0, 2.0))
    spes("spes_1", "SPES2015_Training/1", first=36000)
    spes("spes_2", "SPES2015_Training/2", first=36100)
    spes("spes_test_1", "SPES2015_Testing/1", first=36200, labelled=False)


def isles_2016_2017(build: Builder, year: int) -> None:
    """Later cases have another prefix; the raw perfusion series has five axes."""
    case = partial(archived, build, sequences=OUTCOME, spacing=(1.2, 1.2, 6.5))
    case("training_1", f"ISLES{year}_Training/training_1", first=128020)
    case("training_43", f"ISLES{year}_Training/training_43", first=188920, brand="SMIR")
    case("test_1", f"ISLES{year}_Testing/test_1", first=129317, brand="SMIR", labelled=False)
    series = "SMIR.Brain.XX.O.MR_4DPWI.188919"
    values = intensities(series, (*SHAPE, 1, 3), "float32")
    build.nifti(f"ISLES{year}_Training/training_43/{series}/{series}", values, axes((1.2, 1.2, 6.5)), ".nii")
    build.extra(f"__MACOSX/ISLES{year}_Training/training_1/._VSD.Brain.XX.O.MR_ADC.128020.nii")


def isles_2018(build: Builder) -> None:
    """Training and test part both count from 1, slabs are thick, and one package calls the maps MR."""
    slab = partial(archived, build, sequences=PERFUSION_CT, brand="SMIR", spacing=(0.9, 0.9, 8.0))
    slab("case_1", "TRAINING/case_1", first=345562)
    slab("case_64", "TRAINING/case_64", first=345662)
    older = tuple(name.replace("CT_", "MR_") for name in PERFUSION_CT)
    slab("case_65", "TRAINING/case_65", sequences=older, first=339202)
    slab("test_case_1", "TESTING/case_1", first=346290, labelled=False)
    for folder in ("TRAINING/case_1", "TESTING/case_1"):
        series = "SMIR.Brain.XX.O.CT_4DPWI.345561"
        values = intensities(series, (*SHAPE, 3), "float32")
        build.nifti(f"{folder}/{series}/{series}", values, axes((0.9, 0.9, 8.0)), ".nii")
    build.extra("__MACOSX/TRAINING/case_1/._SMIR.Brain.XX.O.CT.345562.nii")


def isles_2022(
    build: Builder, layout: str = "ISLES-2022/{subject}/ses-0001/{modality}", names: tuple[str, ...] = ("dwi", "adc")
) -> None:
    """FLAIR in capitals, on its own grid and with a moved head; one case without stroke.

    Args:
        build: where to.
        layout: folder of images, by the subject and the modality's folder, "dwi" or "anat".
        names: what the names of DWI and ADC end with.
    """
    for number in (1, 2, 150):
        case = f"sub-strokecase{number:04d}_ses-0001"
        subject = case.split("_")[0]
        dwi_folder, anat_folder = (layout.format(subject=subject, modality=modality) for modality in ("dwi", "anat"))
        dwi = head(DWI_SHAPE, DWI_AFFINE, contrast=1 + number / 300)
        images = (
            build.nifti(f"{dwi_folder}/{case}_{names[0]}", dwi.astype("float64"), DWI_AFFINE, ".nii.gz"),
            build.nifti(f"{dwi_folder}/{case}_{names[1]}", 1200 - dwi / 2, DWI_AFFINE, ".nii.gz"),
            build.nifti(
                f"{anat_folder}/{case}_FLAIR",
                head(FLAIR_SHAPE, FLAIR_AFFINE, shift_mm=FLAIR_SHIFT_MM, contrast=-0.5),
                FLAIR_AFFINE,
                ".nii.gz",
            ),
        )
        mask = np.zeros(DWI_SHAPE, "uint16")
        if number != 150:
            mask[14:18, 20:26, 8:12] = 1
        file = f"ISLES-2022/derivatives/{subject}/ses-0001/{case}_msk"
        # The codes of real masks: no qform, and sform 2.
        build.tree.labels[case] = build.nifti(file, mask, DWI_AFFINE, ".nii.gz", codes=(0, 2))
        build.tree.images[case] = images
        build.tree.patients[case] = subject
    build.extra("ISLES-2022/participants.tsv", "ISLES-2022/dataset_description.json", "ISLES-2022/README")


def isles_2024(build: Builder) -> None:
    """Native and derived files, follow-up images that are not inputs, masks with a slope, a stray mask, NaN."""
    for number in (1, 113, 142):
        case = f"sub-stroke{number:04d}"
        raw, derived = f"train/raw_data/{case}/ses-01/{case}_ses-01", f"train/derivatives/{case}/ses-01"
        put = partial(build.nifti, affine=CT_AFFINE, ending=".nii.gz")
        ct = intensities(f"{case}ncct", CT_SHAPE) - np.int16(500)
        maps = {name: intensities(case + name, CT_SHAPE, "float32") for name in ("tmax", "cbf", "cbv", "mtt")}
        if number == 113:
            maps["mtt"][5:7, 5:7, 4] = np.nan
        space = f"{case}_ses-01_space-ncct"
        build.tree.images[case] = (
            put(f"{raw}_ncct", ct),
            put(f"{derived}/{space}_cta", intensities(f"{case}cta", CT_SHAPE)),
            *(put(f"{derived}/perfusion-maps/{space}_{name}", values) for name, values in maps.items()),
        )
        put(f"{raw}_cta", intensities("native", (11, 12, 13)))
        put(f"{raw}_ctp", intensities("ctp", (6, 6, 4, 5)))
        put(f"{derived}/{space}_ctp", intensities("ctp", (*CT_SHAPE, 3)))
        put(f"{derived}/{space}_lvo-msk", labels("lvo", CT_SHAPE, (1,)))
        late = f"train/derivatives/{case}/ses-02/{case}_ses-02_space-ncct"
        for name in ("dwi", "adc"):
            put(f"{late}_{name}", intensities(case + name, CT_SHAPE))
        mask = labels(case, CT_SHAPE, (65535,), "uint16")
        build.tree.labels[case] = put(f"{late}_lesion-msk", mask, slope=1.5259021893e-05)
        build.tree.patients[case] = case
        build.extra(f"train/phenotype/{case}/ses-01/{case}_ses-01_demographic_baseline.csv")
    stray = "train/derivatives/sub-stroke0142/ses-02/sub-stroke0142_ses-02_lesion-msk"
    build.nifti(stray, labels("stray", (9, 9, 9), (1,)), CT_AFFINE, ".nii")
    build.extra("train/clinical_data-description.xlsx")


def atlas_2(build: Builder) -> None:
    """Sites above subjects; a subject with two sessions, and one mask with 255."""
    space, mni = "space-MNI152NLin2009aSym", axes((1.0, 1.0, 1.0))
    for site, subject, session, value in (
        ("R001", "sub-r001s001", "ses-1", 1),
        ("R001", "sub-r001s001", "ses-2", 1),
        ("R009", "sub-r009s003", "ses-1", 255),
        ("R028", "sub-r028s012", "ses-1", None),
    ):
        case = f"{subject}_{session}"
        folder = f"ATLAS_2/{'Training' if value else 'Testing'}/{site}/{subject}/{session}/anat/{case}_{space}"
        label = (f"{folder}_label-L_desc-T1lesion_mask", labels(case, SHAPE, (value,))) if value else None
        build.case(case, {f"{folder}_T1w": intensities(case, SHAPE, "float32")}, label, affine=mni, patient=subject)
    build.extra("ATLAS_2/20220425_ATLAS_2.0_MetaData.csv")


ISLES_TREES: dict[str, Callable[[Builder], None]] = {
    "isles2015-siss": isles_2015_siss,
    "isles2015-spes": isles_2015_spes,
    "isles2016": partial(isles_2016_2017, year=2016),
    "isles2017": partial(isles_2016_2017, year=2017),
    "isles2018": isles_2018,
    "isles2022": isles_2022,
    "isles2024": isles_2024,
    "atlas2": atlas_2,
}
