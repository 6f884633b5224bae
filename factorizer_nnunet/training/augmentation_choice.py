"""Who augments, by what a training waits for: the decisions of ``nnUNet_factorizer_augmentation=auto`` and their words.

The workers start. If data limit, the device augments, and is measured as well: if training is not faster then, the
workers augment again.
"""

from __future__ import annotations

import torch

from factorizer_nnunet.nnunet.environment import AUGMENTATION_VARIABLE
from factorizer_nnunet.training.data_wait import Measured
from factorizer_nnunet.training.ranks import largest_of_all_ranks

# Of the time; with less waiting, another way of augmentation gains little, and a GPU that augments trains more slowly.
LIMITING_SHARE = 0.2


def agreed(measured: Measured, device: torch.device) -> Measured:
    """What all processes decide by; every process of a distributed training must call this equally often.

    The others wait in their steps for the process whose data come last, which has the longest waiting and the shortest
    step.
    """
    waiting = largest_of_all_ranks(measured.waiting, device)
    return Measured(step=-largest_of_all_ranks(-measured.step, device), waiting=waiting)


def data_limit(measured: Measured) -> bool:
    """Whether a training waits for its data for much of the time."""
    return measured.share > LIMITING_SHARE


def describe_first_choice(measured: Measured, obstacle: str | None) -> str:
    """A line about what the training waited while the workers augmented, and what follows.

    Args:
        measured: by all processes.
        obstacle: why the device cannot augment; None if it can, or if it need not.
    """
    if not data_limit(measured):
        return f"auto: {_times(measured, f', not above {LIMITING_SHARE:.0%}')}: the workers go on augmenting"
    limited = f"auto: {_times(measured, f', above {LIMITING_SHARE:.0%}')}"
    if obstacle is not None:
        return f"{limited}, but {obstacle}: the workers go on augmenting"
    return f"{limited}: the training device augments from now on"


def device_is_faster(measured: Measured, before: Measured) -> bool:
    """Whether a training is faster than ``before``, when the workers augmented."""
    return measured.total < before.total


def describe_second_choice(measured: Measured, before: Measured) -> str:
    """A line about what the training waited while the device augmented, and what follows."""
    if device_is_faster(measured, before):
        gain = before.total / measured.total
        return f"auto: {_times(measured)}, {gain:.1f} times as fast as before: the training device goes on augmenting"
    return f"auto: {_times(measured)}, no faster than the {before.total:.3f} s of before: the workers augment again"


def describe_no_choice(by_workers: bool) -> str:
    """A line about a training that ends before a choice is made."""
    return f"auto: this training has too few steps to choose by; {_who(by_workers)}"


def describe_wait(measured: Measured, on_gpu: bool, by_workers: bool) -> str:
    """A line about the time that a training waits for data; it advises another setting only where that may help."""
    line = f"{_times(measured)}; {_who(by_workers)}"
    if on_gpu and by_workers and data_limit(measured):
        line += f". {AUGMENTATION_VARIABLE}=device moves that to the GPU, where it has not been measured yet"
    return line


def _who(by_workers: bool) -> str:
    return "the workers augment" if by_workers else "the device augments"


def _times(measured: Measured, comparison: str = "") -> str:
    return (
        f"a step takes {measured.step:.3f} s, after {measured.waiting:.3f} s of waiting for data ({measured.share:.0%} "
        f"of the time{comparison})"
    )
