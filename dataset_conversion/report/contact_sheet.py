"""Pictures for the report: slices of cases and registrations with outlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from factorizer_nnunet.dataset_conversion.spec import LabelScheme
from factorizer_nnunet.dataset_conversion.survey import Survey
from factorizer_nnunet.dataset_conversion.write import Registered
from factorizer_nnunet.pages.pictures import draw, side_for


@dataclass(frozen=True)
class Pictures:
    """All pictures of a page as JPEG files."""

    cases: Mapping[str, bytes]  # by case name
    # by case and channel name: the image that defines the grid, the channel aligned by its header, and as written
    registrations: Mapping[tuple[str, str], tuple[bytes, bytes, bytes]]

    @classmethod
    def of(cls, survey: Survey, registered: Sequence[Registered]) -> Pictures:
        """Draw the pictures of a conversion; the more there are, the smaller they are."""
        side = side_for(len(survey.kept) + 3 * len(registered))
        cases = {
            e.case.name: draw(e.thumbnail.image, region_masks(e.thumbnail.label, survey.scheme), side)
            for e in survey.kept
            if e.thumbnail is not None
        }
        registrations = {}
        for one in registered:
            head = head_mask(one.reference)
            reference, before, after = (draw(image, [head], side) for image in (one.reference, one.before, one.after))
            registrations[one.case, one.channel] = (reference, before, after)
        return cls(cases, registrations)


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
