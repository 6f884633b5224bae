"""Every release that can be converted, by the name a user types."""

from __future__ import annotations

from factorizer_nnunet.dataset_conversion.brats import BRATS_2021
from factorizer_nnunet.dataset_conversion.spec import Release

RELEASES: dict[str, Release] = {release.key: release for release in (BRATS_2021,)}
