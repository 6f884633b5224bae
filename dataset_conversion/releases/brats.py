"""Shared by BraTS releases: regions and label values, channels, and name patterns."""

from __future__ import annotations

from functools import partial

from factorizer_nnunet.dataset_conversion.spec import Channel, LabelMap, LabelScheme, Release

# 2018-2021. Raw values: 1 necrotic and non-enhancing core, 2 edema, 4 enhancing tumor. Written values are those of
# nnU-Net's own converter (nnunetv2/dataset_conversion/Dataset137_BraTS21.py), so that trained models are compatible.
UP_TO_2021 = LabelScheme(
    LabelMap({0: 0, 2: 1, 1: 2, 4: 3}),
    {"whole tumor": (1, 2, 3), "tumor core": (2, 3), "enhancing tumor": (3,)},
    (1, 2, 3),
)

# From 2023 on: 1 non-enhancing core, 2 edema, 3 enhancing tumor. This holds for all five tasks of 2023, including
# children (regions as in the organisers' metric code, rachitsaluja/BraTS-2023-Metrics).
FROM_2023 = LabelScheme(
    LabelMap({0: 0, 1: 1, 2: 2, 3: 3}),
    {"whole tumor": (1, 2, 3), "tumor core": (1, 3), "enhancing tumor": (3,)},
    (2, 1, 3),
)

# After treatment, 4 is the resection cavity, which is not part of the whole tumor (rachitsaluja/BraTS-2024-Metrics).
WITH_CAVITY = LabelScheme(
    LabelMap({0: 0, 1: 1, 2: 2, 3: 3, 4: 4}),
    {"whole tumor": (1, 2, 3), "tumor core": (1, 3), "enhancing tumor": (3,), "resection cavity": (4,)},
    (2, 1, 3, 4),
)

# Children from 2024 on: 1 enhancing, 2 non-enhancing, 3 cystic component, 4 edema (rachitsaluja/BraTS-2024-Metrics).
# The numbers are those of 2023, with different meanings.
CHILDREN_FROM_2024 = LabelScheme(
    LabelMap({0: 0, 1: 1, 2: 2, 3: 3, 4: 4}),
    {"whole tumor": (1, 2, 3, 4), "tumor core": (1, 2, 3), "cystic component": (3,), "enhancing tumor": (1,)},
    (4, 2, 3, 1),
)

# Radiotherapy of meningioma: one target volume.
RADIOTHERAPY = LabelScheme(LabelMap({0: 0, 1: 1}), {"gross tumor volume": (1,)})

CHANNELS_UP_TO_2021 = (
    Channel("T1", "{case}_t1"),
    Channel("T1ce", "{case}_t1ce"),
    Channel("T2", "{case}_t2"),
    Channel("FLAIR", "{case}_flair"),
)
CHANNELS_FROM_2023 = (
    Channel("T1n", "{case}-t1n"),
    Channel("T1c", "{case}-t1c"),
    Channel("T2w", "{case}-t2w"),
    Channel("T2f", "{case}-t2f"),
)

# validation_data, and after a challenge's name MICCAI_BraTS_2018_Data_Validation, ...-ValidationData,
# BraTS-MEN-RT-Val-v1; copies add a number, a batch or a date. A folder my_validation_of_nets must not match.
_CHALLENGE = r".*(?:BraTS|MICCAI)(?:.*(?<![a-z]))?"
_DATA = r"(?:[-_ ]?(?:data|set|dataset))?(?:[-_ ]*(?:[v(]?\d|batch).*)?"
UNLABELLED = rf"(?:(?:{_CHALLENGE})?(?:validation|val)|{_CHALLENGE}testing|testing(?=[-_ ]?data)){_DATA}"

# The official checks expect names that end with digits and ".nii.gz", so "-seg.nii.gz" would be rejected
# (Sage-Bionetworks-Challenges/brats2023, evaluation/lesionwise/validate.py); unconfirmed for 2018-2021.
SUBMISSION = "{case}.nii.gz"


def timepoint_case(task: str, time: str = r"\d{3}") -> str:
    """Pattern of case names that contain a patient number and a time point."""
    return rf"BraTS-{task}-\d{{5}}-{time}"


def task_from_2023(year: int, page: str, licence: str, task: str, paper: str = "") -> partial[Release]:
    """What the tasks from 2023 on have in common, with names as usual; a declaration adds or changes the rest."""
    return partial(
        Release,
        key=f"brats{year}-{task.lower()}",
        title=f"BraTS {year} {task}",
        case=timepoint_case(task),
        channels=CHANNELS_FROM_2023,
        display="T2f",  # FLAIR: in T1 edema is hardly visible
        label=("{case}-seg",),
        schemes=(FROM_2023,),
        root=rf".*BraTS-?{year}-{task}.*",
        unlabelled=UNLABELLED,
        patient=r"(.*-\d{5})-\d{3}",  # of case names like BraTS-GLI-00005-100
        submission=SUBMISSION,
        licence=licence,
        reference=f"{page}; {paper}" if paper else page,
    )
