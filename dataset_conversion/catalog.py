"""Every release that can be converted, by the name a user types, the years of a challenge in their order."""

from __future__ import annotations

from itertools import chain

from factorizer_nnunet.dataset_conversion.releases import (
    atlas,
    brats_2018_2021,
    brats_2023,
    brats_2024,
    brats_2025,
    isles_2015,
    isles_2016_2017,
    isles_2018,
    isles_2022,
    isles_2024,
    msd,
)
from factorizer_nnunet.dataset_conversion.spec import Release

_MODULES = (
    brats_2018_2021,
    brats_2023,
    brats_2024,
    brats_2025,
    msd,
    isles_2015,
    isles_2016_2017,
    isles_2018,
    isles_2022,
    isles_2024,
    atlas,
)

RELEASES: dict[str, Release] = {
    release.key: release for release in chain.from_iterable(module.RELEASES for module in _MODULES)
}
