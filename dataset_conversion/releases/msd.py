"""Medical Segmentation Decathlon, task 1: the glioma cases of BraTS 2016 and 2017, four modalities in one 4D file."""

from __future__ import annotations

from dataclasses import replace

from factorizer_nnunet.dataset_conversion.releases.brats import UP_TO_2021
from factorizer_nnunet.dataset_conversion.spec import Channel, LabelMap, Release

MSD_BRAIN = Release(
    key="msd-brain",
    title="MSD Task01 BrainTumour",
    case=r"BRATS_\d+",
    # Order in the file: FLAIR, T1w, T1gd, T2w (dataset.json of the release); here as in BraTS.
    channels=(
        Channel("T1w", "imagesT[rs]/{case}", volume=1),
        Channel("T1gd", "imagesT[rs]/{case}", volume=2),
        Channel("T2w", "imagesT[rs]/{case}", volume=3),
        Channel("FLAIR", "imagesT[rs]/{case}", volume=0),
    ),
    display="FLAIR",
    label=("labelsTr/{case}",),
    # 1 edema, 2 non-enhancing, 3 enhancing tumor: the written values of BraTS up to 2021.
    schemes=(replace(UP_TO_2021, labels=LabelMap({0: 0, 1: 1, 2: 2, 3: 3})),),
    root="Task01_BrainTumour",
    unlabelled="imagesTs",
    patients_hidden=(
        "case names of MSD do not identify patients, some were examined several times, and no table of BraTS names is "
        "known: give --patients a CSV file with the columns case,patient"
    ),
    submission="{case}.nii.gz",
    example="Task01_BrainTumour/imagesTr/BRATS_457.nii.gz",
    licence="CC BY-SA 4.0",
    reference="http://medicaldecathlon.com; doi:10.1038/s41467-022-30695-9",
)
