"""Channels that a case does not have: how a network sees them, one rule for training, validation and prediction.

After normalisation an absent channel is exactly 0, and the others are multiplied by channels / present channels, as in
dropout (Srivastava et al., 2014), so that sums over channels keep their size. This needs no weights of its own: plans
and checkpoints are those of any other model. Imports neither torch nor nnU-Net.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np

from factorizer_nnunet.nnunet.names import CHANNEL_DROP, TRAINER, TRAINER_SUFFIX, parse_repeat

CHECKPOINT_KEY = "factorizer_channel_drop"  # entry of their checkpoints


def channel_factors(present: np.ndarray) -> np.ndarray:
    """What each channel is multiplied by, float32: 0 if it is absent.

    Args:
        present: (…, channels), bool.
    """
    count = np.maximum(present.sum(-1, keepdims=True), 1)
    return np.where(present, present.shape[-1] / count, 0).astype(np.float32)


def leave_out(data: np.ndarray, absent: Collection[int]) -> np.ndarray:
    """The normalised image (channels, *spatial) as the network sees it; it is changed in place."""
    if absent:
        present = np.array([number not in absent for number in range(len(data))])
        for channel, factor in zip(data, channel_factors(present), strict=True):
            if factor:
                channel *= factor
            else:
                channel.fill(0)
    return data


def with_absent(image: np.ndarray, absent: Collection[int]) -> np.ndarray:
    """An image (present channels, *spatial) with zeros in the place of the channels numbered ``absent``."""
    if not absent:
        return image
    complete = np.zeros((len(image) + len(absent), *image.shape[1:]), image.dtype)
    complete[[number for number in range(len(complete)) if number not in absent]] = image
    return complete


def channels_of_zeros(image: np.ndarray) -> frozenset[int]:
    """Numbers of the channels of an image, (channels, *spatial), that are 0 everywhere, as files of absent ones are."""
    return frozenset(number for number, channel in enumerate(image) if not channel.any())


def drops_channels(trainer: str) -> bool:
    """Whether a trainer leaves out channels, by its name."""
    return trainer.startswith(TRAINER) and parse_repeat(trainer)[0].endswith(CHANNEL_DROP)


def advice_for(trainer: str) -> str:
    """Which training gives a model that predicts without some channels, as a sentence.

    It is as long as that of ``trainer``, unless this is a trainer of others, to whose names nothing can be added.
    """
    name = parse_repeat(trainer)[0] + CHANNEL_DROP
    if re.fullmatch(TRAINER + TRAINER_SUFFIX, name) is None:
        name = TRAINER + CHANNEL_DROP
    return f"A model that predicts cases without all channels is trained with -tr {name}"
