"""Agreement of all processes of a training after each step, so that none waits for one that has stopped."""

from __future__ import annotations

import enum

import torch
from torch import distributed as dist


class Verdict(enum.IntEnum):
    """What follows from a step; the highest value of all processes counts."""

    CONTINUE = 0
    STOP = 1  # a signal asked for it
    DIVERGED = 2  # the loss is not finite


def verdict_of_all_ranks(verdict: Verdict, device: torch.device) -> Verdict:
    """The highest verdict of all processes; every process of a distributed training must call this equally often."""
    return Verdict(int(largest_of_all_ranks(verdict, device)))


def largest_of_all_ranks(value: float, device: torch.device) -> float:
    """The largest value of all processes; every process of a distributed training must call this equally often."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    largest = torch.tensor(float(value), device=device)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return float(largest)
