"""BraTS: brain tumours in four MR modalities, one declaration a release."""

from __future__ import annotations

from factorizer_nnunet.dataset_conversion.spec import Channel, LabelMap, Release

# Raw values: 1 necrotic core, 2 edema, 4 enhancing tumour. Layout and values as nnU-Net's own converter reads them
# (nnunetv2/dataset_conversion/Dataset137_BraTS21.py); the validation part comes without segmentations.
BRATS_2021 = Release(
    key="brats2021",
    title="BraTS 2021",
    case_pattern=r"BraTS2021_\d{5}",
    patient_pattern=r"(BraTS2021_\d{5})",  # repeated examinations of one patient cannot be told from the IDs
    channels=(
        Channel("T1", "{case}_t1"),
        Channel("T1ce", "{case}_t1ce"),
        Channel("T2", "{case}_t2"),
        Channel("FLAIR", "{case}_flair"),
    ),
    label_file="{case}_seg",
    labels=LabelMap({0: 0, 2: 1, 1: 2, 4: 3}),
    regions={"whole tumor": (1, 2, 3), "tumor core": (2, 3), "enhancing tumor": (3,)},
    regions_class_order=(1, 2, 3),
    unlabelled_pattern=r"(?i).*valid.*",
    licence="see the data use terms of the challenge",
    reference="https://www.synapse.org/Synapse:syn25829067/wiki/610863",
)
