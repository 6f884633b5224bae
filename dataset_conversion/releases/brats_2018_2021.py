"""BraTS 2018 to 2021: glioma before treatment, T1, T1ce, T2 and FLAIR on one grid of 1 mm."""

from __future__ import annotations

from functools import partial

from factorizer_nnunet.dataset_conversion.releases.brats import CHANNELS_UP_TO_2021, SUBMISSION, UNLABELLED, UP_TO_2021
from factorizer_nnunet.dataset_conversion.spec import Release

_PAPERS = "doi:10.1109/TMI.2014.2377694; doi:10.1038/sdata.2017.117"
_REPEATS = (
    "case names of BraTS 2018 to 2021 do not identify all patients, and some were examined several times, so folds may "
    "share patients: give --patients a CSV file with the columns case,patient; the organisers' table "
    "BraTS2023_2017_GLI_Mapping.xlsx identifies them"
)


def _glioma(year: int) -> partial[Release]:
    return partial(
        Release,
        key=f"brats{year}",
        title=f"BraTS {year}",
        root=rf".*BraTS_?{year}.*",
        channels=CHANNELS_UP_TO_2021,
        display="FLAIR",
        label=("{case}_seg",),
        schemes=(UP_TO_2021,),
        unlabelled=UNLABELLED,
        submission=SUBMISSION,
        patients_hidden=_REPEATS,
        licence="see the terms of the challenge",  # requires registration and citation; no open licence is known
        reference=f"https://www.med.upenn.edu/cbica/brats{year}/; {_PAPERS}",
    )


BRATS_2018 = _glioma(2018)(
    case=r"Brats18_\w+_\d+",  # the official spelling is Brats18
    patient=r"(Brats18_.+)_\d+",
    stratum=r"(?:^|/)(HGG|LGG)/",  # high and low grade; copies may lack these folders
    example="MICCAI_BraTS_2018_Data_Training/HGG/Brats18_2013_1_1/Brats18_2013_1_1_flair.nii.gz",
)

BRATS_2019 = _glioma(2019)(
    case=r"BraTS19_\w+_\d+",
    patient=r"(BraTS19_.+)_\d+",
    stratum=r"(?:^|/)(HGG|LGG)/",
    example="MICCAI_BraTS_2019_Data_Training/HGG/BraTS19_CBICA_BLJ_1/BraTS19_CBICA_BLJ_1_t1ce.nii.gz",
)

BRATS_2020 = _glioma(2020)(
    case=r"BraTS20_(?:Training|Validation)_\d{3}",
    leftover_label=True,  # the label of BraTS20_Training_355 is W39_1998.09.19_Segm.nii
    # The table also has the names of 2017 to 2019, but these do not reveal repeats: all end with _1.
    strata_table=("name_mapping.csv", "BraTS_2020_subject_ID", "Grade"),
    example="MICCAI_BraTS2020_TrainingData/BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz",
)

BRATS_2021 = _glioma(2021)(
    case=r"BraTS2021_\d{5}",
    example="RSNA_ASNR_MICCAI_BraTS2021_TrainingData_16July2021/BraTS2021_00000/BraTS2021_00000_flair.nii.gz",
    reference="https://www.synapse.org/Synapse:syn25829067; arXiv:2107.02314",
)
