"""Colours that people with any kind of colour vision can tell apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from factorizer_nnunet.pages.palette import AGREEMENT, COLOURS, DASHES, FALSE_NEGATIVE, FALSE_POSITIVE, rgb

# Severity 1.0, linear RGB: Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009), table 1.
VISION = {
    "normal": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    "protan": [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
    "deutan": [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.011820, 0.042940, 0.968881],
    "tritan": [1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.303900],
}


def _seen(colour: str, vision: str) -> np.ndarray:
    """The colour in CIELAB as it is seen."""
    values = np.array(rgb(colour)) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.reshape(VISION[vision], (3, 3)) @ linear, 0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("colours", [COLOURS, (FALSE_POSITIVE, FALSE_NEGATIVE, AGREEMENT)])
def test_any_two_colours_can_be_told_apart(vision: str, colours: tuple[str, ...]) -> None:
    for one, other in itertools.combinations(colours, 2):
        assert deltaE_ciede2000(_seen(one, vision), _seen(other, vision)) >= 25, (one, other)


def test_every_colour_has_its_own_line_style() -> None:
    assert len(set(DASHES)) == len(DASHES) == len(COLOURS)
