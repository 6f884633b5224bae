"""Agreement of all processes of a training, so that none waits for one that has stopped."""

from __future__ import annotations

import enum
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from factorizer_nnunet.core.errors import UserError

Result = TypeVar("Result")
# How often waiting processes hear from the first one: it may read files for longer than NCCL's limit of ten minutes.
_SECONDS_BETWEEN_WORDS = 20.0


class Verdict(enum.IntEnum):
    """What follows from a step; the highest value of all processes counts."""

    CONTINUE = 0
    STOP = 1  # a signal asked for it
    DIVERGED = 2  # the loss is not finite


def verdict_of_all_ranks(verdict: Verdict, device: torch.device) -> Verdict:
    """The highest verdict of all processes; every process of a distributed training must call this equally often."""
    return Verdict(int(largest_of_all_ranks(verdict, device)))


def verdict_on(loss: np.ndarray, stops: bool) -> Verdict:
    """What follows from a step with this loss in one process, of which a signal may have asked to stop."""
    if not np.isfinite(loss).all():
        return Verdict.DIVERGED
    return Verdict.STOP if stops else Verdict.CONTINUE


def loss_and_verdict(loss: Tensor, stops: bool) -> tuple[np.ndarray, Verdict]:
    """A step's loss and the highest verdict of all processes, for which the process waits once instead of twice.

    Every process of a distributed training must call this equally often.

    Args:
        loss: of this process, a scalar on its device.
        stops: whether a signal asked this process to stop.
    """
    otherwise = float(Verdict.STOP if stops else Verdict.CONTINUE)
    verdict = torch.where(torch.isfinite(loss), otherwise, float(Verdict.DIVERGED))
    dist.all_reduce(verdict, op=dist.ReduceOp.MAX)
    value, highest = torch.stack([loss.float(), verdict.float()]).cpu().numpy()
    return np.asarray(value), Verdict(int(highest))


def largest_of_all_ranks(value: float, device: torch.device) -> float:
    """The largest value of all processes; every process of a distributed training must call this equally often."""
    if not _are_several():
        return value
    largest = torch.tensor(float(value), device=device)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return float(largest)


def on_first_rank(function: Callable[[], Result]) -> Result:
    """What a function returns, called by the first process alone; all processes must call this equally often.

    Args:
        function: its result can be pickled; in a distributed training it is called in a thread.

    Raises:
        UserError: in every process if the first one raises it, so that none waits; ``torch.multiprocessing`` shows the
            message once. After any other exception, which the first process raises, it says so in the others.
    """
    if not _are_several():
        return function()
    if dist.get_rank() == 0:
        return _called_while_others_wait(function)
    answer: list[Any] = [None, None]
    while answer[0] is None:
        dist.broadcast_object_list(answer, src=0)
    succeeded, result = answer
    if not succeeded:
        raise UserError(result)
    return result


def _called_while_others_wait(function: Callable[[], Result]) -> Result:
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(function)
        while not wait([future], timeout=_SECONDS_BETWEEN_WORDS).done:
            dist.broadcast_object_list([None, None], src=0)
    error = future.exception()
    if error is None:
        dist.broadcast_object_list([True, future.result()], src=0)
    else:
        message = str(error) if isinstance(error, UserError) else f"the first process failed: {error!r}"
        dist.broadcast_object_list([False, message], src=0)
    return future.result()


def _are_several() -> bool:
    return dist.is_available() and dist.is_initialized()
