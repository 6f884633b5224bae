"""Tell which release lies below the sources, by the cases that are complete there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.dataset_conversion.catalog import RELEASES
from factorizer_nnunet.dataset_conversion.discover import Listing
from factorizer_nnunet.dataset_conversion.layout import Nifti, gather, is_below_root
from factorizer_nnunet.dataset_conversion.spec import Release


@dataclass(frozen=True)
class _Candidate:
    release: Release
    cases: int  # with all channels asked for; those on grids of their own may be missing
    images: tuple[Nifti, ...]  # of these cases

    @property
    def below_root(self) -> bool:
        return any(is_below_root(self.release, image.shown) for image in self.images)

    def has_all_of(self, other: _Candidate) -> bool:
        return {image.path for image in other.images} <= {image.path for image in self.images}


def recognise(listing: Listing, channels: Sequence[str] | None = None) -> Release:
    """Return the release that most complete cases below the sources are of.

    Cases need the ``channels`` of these names alone, by default all of a release, and releases without channels of
    these names are out of the question. A channel on a grid of its own may be missing: finding the cases then says
    what to do about it, case by case.

    Releases with the same case names are told by the folders above; where these tell several that mean the same by
    their labels, the latest is taken, since challenges give out earlier folders again.

    Raises:
        UserError: no release, several side by side, or one of several that the folders do not tell, the message naming
            them; a channel given twice.
    """
    releases = [release for release in RELEASES.values() if channels is None or release.has_channels(channels)]
    candidates = [c for release in releases if (c := _candidate(release, listing, channels)).cases]
    where = ", ".join(map(str, listing.sources))
    if not candidates:
        which = "" if channels is None else f" with channels {' '.join(channels)}"
        raise UserError(
            f"no release{which} is recognised below {where}, among {len(listing.files)} NIfTI files: name it instead "
            "of auto; factorizer-nnunet convert list shows all releases and what is expected of their files"
        )
    most = max(candidate.cases for candidate in candidates)
    best = [candidate for candidate in candidates if candidate.cases == most]
    beside = [c for c in candidates if not any(one.has_all_of(c) for one in best)]
    unlike = [c for c in best if not c.has_all_of(best[0])]
    if beside or unlike:
        raise UserError(
            f"{where} holds several releases, {_names([best[0], *unlike, *beside])}: give one's folder only"
        )
    told = [candidate for candidate in best if candidate.below_root] if len(best) > 1 else best
    if told and all(candidate.release.schemes == told[0].release.schemes for candidate in told):
        return told[-1].release
    raise UserError(
        f"{most} cases below {where} can be of {_names(told or best)}, which name files alike, and no folder tells "
        "which: name the release instead of auto"
    )


def _candidate(release: Release, listing: Listing, channels: Sequence[str] | None) -> _Candidate:
    drafts = gather(release, listing.files).drafts.values()
    chosen = release.chosen_channels(channels)
    needed = [channel.file for channel in chosen if not channel.own_grid] or [channel.file for channel in chosen]
    complete = [draft for draft in drafts if all(pattern in draft.hits for pattern in needed)]
    images = tuple(hit.file for draft in complete for pattern in needed for hit in draft.hits[pattern])
    return _Candidate(release, len(complete), images)


def _names(candidates: Sequence[_Candidate]) -> str:
    names = [candidate.release.key for candidate in candidates]
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
