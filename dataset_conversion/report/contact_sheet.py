"""Pictures for the report: slices of cases and registrations with outlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from factorizer_nnunet.dataset_conversion.spec import LabelScheme
from factorizer_nnunet.dataset_conversion.survey import Survey
from factorizer_nnunet.dataset_conversion.write import Registered
from factorizer_nnunet.imaging.planes import AXIAL
from factorizer_nnunet.pages.pictures import draw, side_for


@dataclass(frozen=True)
class Pictures:
    """All pictures of a page as JPEG files."""

    cases: Mapping[str, bytes]  # by case name
    captions: Mapping[str, str]  # by case name: channel, plane, position and window
    # by case and channel name, with a caption each: the image that defines the grid, the channel aligned by its header,
    # and as written
    registrations: Mapping[tuple[str, str], tuple[tuple[bytes, str], ...]]

    @classmethod
    def of(cls, survey: Survey, registered: Sequence[Registered]) -> Pictures:
        """Draw the pictures of a conversion; the more there are, the smaller they are."""
        side = side_for(len(survey.kept) + 3 * len(registered))
        shown = {e.case.name: e.thumbnail for e in survey.kept if e.thumbnail is not None}
        cases = {
            case: draw(one.image, region_masks(one.label, survey.scheme), side, plane=AXIAL, position=one.position)
            for case, one in shown.items()
        }
        captions = {
            case: ", ".join(filter(None, (one.channel, AXIAL.name, one.position, one.window)))
            for case, one in shown.items()
        }
        registrations = {}
        for one in registered:
            head, place = head_mask(one.reference), ", ".join(filter(None, (AXIAL.name, one.position)))
            registrations[one.case, one.channel] = tuple(
                (draw(image, [head], side, plane=AXIAL, position=one.position), f"{shown_as}, {place}")
                for image, shown_as in (
                    (one.reference, one.reference_shown),
                    (one.before, one.shown),
                    (one.after, one.shown),
                )
            )
        return cls(cases, captions, registrations)


def head_mask(image: np.ndarray) -> np.ndarray:
    """Pixels brighter than the average; their outline over another image shows whether both are aligned."""
    smooth = np.asarray(Image.fromarray(np.ascontiguousarray(image)).filter(ImageFilter.GaussianBlur(1)))
    return smooth > smooth.mean()


def region_masks(label: np.ndarray, scheme: LabelScheme) -> list[np.ndarray]:
    """Boolean masks (rows, columns) of the scheme's regions, in order, from raw label values."""
    to_nnunet = scheme.labels.to_nnunet
    return [
        np.isin(label, [raw for raw, written in to_nnunet.items() if written in values])
        for values in scheme.regions.values()
    ]
