"""ISLES 2016 and 2017: the final infarct from acute MR diffusion and perfusion. 2017 contains 2016."""

from __future__ import annotations

from factorizer_nnunet.dataset_conversion.releases.isles import ARCHIVED_LABEL, LESION, archived_channels
from factorizer_nnunet.dataset_conversion.spec import Release


def _final_infarct(year: int) -> Release:
    return Release(
        key=f"isles{year}",
        title=f"ISLES {year}",
        case=r"[a-z]+_?\d+",  # training_1; test_1 according to users
        # The raw perfusion series (MR_4DPWI, five axes) is not a channel.
        channels=archived_channels("ADC", "MTT", "rCBF", "rCBV", "Tmax", "TTP", numbered="MTT"),
        display="ADC",
        label=(ARCHIVED_LABEL,),
        schemes=(LESION,),
        root=rf"ISLES_?-?{year}.*",
        unlabelled=rf"(?:ISLES_?-?{year}_?)?Test(?:ing)?",
        submission="SMIR.my_result_01.{mtt}.nii",  # ends with the number of the MTT file, according to two users
        example=f"ISLES{year}_Training/training_1/VSD.Brain.XX.O.MR_ADC.128020/VSD.Brain.XX.O.MR_ADC.128020.nii",
        licence="CC BY 4.0 on Zenodo",
        reference=f"https://www.isles-challenge.org/ISLES{year}/; doi:10.3389/fneur.2018.00679",
    )


# Distributed both co-registered and not; in the latter the grids of a case differ, which is a problem. Folders are
# unconfirmed, and the example is from 2017.
ISLES_2016 = _final_infarct(2016)
ISLES_2017 = _final_infarct(2017)
