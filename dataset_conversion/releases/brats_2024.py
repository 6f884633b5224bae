"""BraTS 2024: glioma after treatment, Sub-Saharan Africa, radiotherapy of meningioma, metastases, children, GoAT."""

from __future__ import annotations

from functools import partial

from factorizer_nnunet.dataset_conversion.releases.brats import (
    CHILDREN_FROM_2024,
    FROM_2023,
    RADIOTHERAPY,
    WITH_CAVITY,
    task_from_2023,
    timepoint_case,
)
from factorizer_nnunet.dataset_conversion.releases.brats_2023 import OTHER_NEOPLASMS
from factorizer_nnunet.dataset_conversion.spec import Channel

_task = partial(
    task_from_2023,
    2024,
    "https://www.synapse.org/Synapse:syn53708249",
    "CC BY-NC 4.0 with registered access, according to users; see the terms of the challenge",
)

_PED_TELLTALE = (4, "here it means edema. In PED 2023, 4 does not occur and 3 is enhancing tumor: is it brats2023-ped?")
_MEN_RT_STALE = (
    r"(?:^|/)BraTS-MEN-RT-Train-v2/(?:.*/)?BraTS-MEN-RT-0402-1_"  # redistributed separately, according to users
)
_GOAT_PATIENTS = (
    "case names of GoAT do not identify patients, and its cases come from several releases: give --patients a CSV file "
    "with the columns case,patient"
)
# -100, -101, ...: time points after treatment. It is not known whether 00005 is the same patient as in 2023.
_POST_TREATMENT_ROOTS = r"training_data1(?:_v2)?|training_data_additional|.*BraTS-?2024-(?:BraTS-)?GLI.*"

BRATS_2024_GLI = _task("GLI", "arXiv:2405.18368")(
    case=timepoint_case("GLI", r"[1-9]\d{2}"),
    schemes=(WITH_CAVITY,),
    root=_POST_TREATMENT_ROOTS,
    preferred="training_data1_v2",  # the first release was training_data1
    example="training_data1_v2/BraTS-GLI-00005-100/BraTS-GLI-00005-100-seg.nii.gz",
)

BRATS_2024_SSA = _task("SSA", "arXiv:2305.19369")(
    preferred=r".*_V2",
    excluded=OTHER_NEOPLASMS,
    # The training part is that of 2023; only the validation part is new.
    example="ASNR-MICCAI-BraTS2023-SSA-Challenge-TrainingData_V2/BraTS-SSA-00002-000/BraTS-SSA-00002-000-seg.nii.gz",
)

# One modality, each case on its own grid, not skull-stripped.
BRATS_2024_MEN_RT = _task("MEN-RT", "arXiv:2405.18383")(
    case=r"BraTS-MEN-RT-\d{4}-\d+",
    channels=(Channel("T1c", "{case}[_-]t1c"),),  # the official names have "_"
    display="T1c",
    label=("{case}[_-]gtv",),
    schemes=(RADIOTHERAPY,),
    root=r"BraTS-?(?:2024)?-?MEN-RT-(?:Train|Val).*",
    superseded=_MEN_RT_STALE,
    patient=r"(BraTS-MEN-RT-\d{4})-\d+",
    example="BraTS-MEN-RT-Train-v2/BraTS-MEN-RT-0004-1/BraTS-MEN-RT-0004-1_t1c.nii.gz",
)

BRATS_2024_MET = _task("MET", "arXiv:2306.00838")(
    schemes=(FROM_2023, WITH_CAVITY),  # scored with a cavity, which the cases seen so far do not have: unconfirmed
    preferred=r".*fixed-cases.*",
    example="MICCAI-BraTS2024-MET-Challenge-Training_1/BraTS-MET-00001-000/BraTS-MET-00001-000-t1c.nii.gz",
)

BRATS_2024_PED = _task("PED", "arXiv:2404.15009")(
    schemes=(CHILDREN_FROM_2024,),
    root=r".*BraTS-?PEDs?-?2024.*|.*BraTS-?2024-PED.*",
    telltale=_PED_TELLTALE,
    example="BraTS-PEDs2024_Training/BraTS-PED-00002-000/BraTS-PED-00002-000-t2w.nii.gz",
)

BRATS_2024_GOAT = _task("GoAT")(
    case=r"BraTS-GoAT-\d{5}",
    root=r".*(?:ISBI|MICCAI|BraTS)-?2024-(?:BraTS-)?GoAT.*",
    labels_optional=True,  # the first training folder is said to contain unlabelled cases
    patient="(.*)",
    patients_hidden=_GOAT_PATIENTS,
    example="MICCAI2024-BraTS-GoAT-TrainingData-With-GroundTruth/BraTS-GoAT-02235/BraTS-GoAT-02235-seg.nii.gz",
)
