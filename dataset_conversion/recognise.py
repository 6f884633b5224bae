"""Recognise the release below the sources by its complete cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.dataset_conversion.discover import SourceListing
from factorizer_nnunet.dataset_conversion.layout import NiftiFile, group_by_case, in_folder
from factorizer_nnunet.dataset_conversion.releases import RELEASES
from factorizer_nnunet.dataset_conversion.spec import Release


@dataclass(frozen=True)
class _Candidate:
    release: Release
    cases: int  # with all requested channels; channels on their own grids may be missing
    images: tuple[NiftiFile, ...]  # of these cases

    @property
    def below_root(self) -> bool:
        return any(in_folder(self.release.root, image.shown) for image in self.images)

    def has_all_of(self, other: _Candidate) -> bool:
        return {image.path for image in other.images} <= {image.path for image in self.images}


def recognise(listing: SourceListing, channels: Sequence[str] | None = None) -> Release:
    """Return the release to which most complete cases below the sources belong.

    A complete case has the named ``channels``, by default all of a release. Releases without channels of these names
    are not considered. A channel on its own grid may be missing: finding the cases then explains what to do.

    Releases with the same case names are distinguished by their folders. If several releases with the same labels
    remain, the latest is returned, because challenges distribute earlier folders again.

    Raises:
        UserError: no release is recognised, several are present, or the folders do not distinguish the candidates;
            or a channel is given twice.
    """
    releases = [release for release in RELEASES.values() if channels is None or release.has_channels(channels)]
    candidates = [c for release in releases if (c := _candidate(release, listing, channels)).cases]
    where = ", ".join(map(str, listing.sources))
    if not candidates:
        which = "" if channels is None else f" with channels {' '.join(channels)}"
        raise UserError(
            f"no release{which} is recognised below {where}, among {len(listing.files)} NIfTI files: give its name "
            "instead of auto; factorizer-nnunet convert list shows all releases and their files"
        )
    most = max(candidate.cases for candidate in candidates)
    best = [candidate for candidate in candidates if candidate.cases == most]
    separate = [c for c in best if not c.has_all_of(best[0])]
    separate += [c for c in candidates if not any(one.has_all_of(c) for one in best)]
    if separate:
        raise UserError(f"{where} contains several releases, {_names([best[0], *separate])}: give the folder of one")
    likely = [candidate for candidate in best if candidate.below_root] if len(best) > 1 else best
    if likely and all(candidate.release.schemes == likely[0].release.schemes for candidate in likely):
        return likely[-1].release
    raise UserError(
        f"{most} cases below {where} could belong to {_names(likely or best)}, which use the same file names, and no "
        "folder name tells them apart: give the release's name instead of auto"
    )


def _candidate(release: Release, listing: SourceListing, channels: Sequence[str] | None) -> _Candidate:
    chosen = release.chosen_channels(channels)
    needed = [channel.file for channel in chosen if not channel.own_grid] or [channel.file for channel in chosen]
    cases = group_by_case(release, listing.files).cases.values()
    complete = [case for case in cases if all(pattern in case.matches for pattern in needed)]
    images = tuple(match for case in complete for pattern in needed for match in case.matches[pattern])
    return _Candidate(release, len(complete), images)


def _names(candidates: Sequence[_Candidate]) -> str:
    names = [candidate.release.key for candidate in candidates]
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
