"""Our environment variables that a training reads, checked together, so that no command finds a wrong one too late."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

import torch

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.network.ops.dispatch import KERNELS_OFF, KERNELS_VARIABLE
from factorizer_nnunet.nnunet.environment import step_setting
from factorizer_nnunet.nnunet.inference_settings import refuse_in_training
from factorizer_nnunet.training.augmented import checked_augmentation
from factorizer_nnunet.training.checkpoints import minutes_between_checkpoints

_KERNELS_ON = ("1", "true", "t")


def variable_problems(device: str) -> Iterator[str]:
    """What is wrong with the variables for a training on a device of this type, with the fix."""
    checks: list[Callable[[], object]] = [
        refuse_in_training,
        lambda: checked_augmentation(torch.device(device)),
        step_setting,
        check_kernels,
        minutes_between_checkpoints,
    ]
    for check in checks:
        try:
            check()
        except UserError as error:
            yield str(error)


def check_variables(device: str) -> None:
    """Check the variables for a training on a device of this type.

    Raises:
        UserError: one has a wrong value.
    """
    for problem in variable_problems(device):
        raise UserError(problem)


def check_kernels(environment: Mapping[str, str] = os.environ) -> None:
    """Check the variable that switches the kernels off; not set or empty means on.

    Raises:
        UserError: it is neither on nor off.
    """
    value = environment.get(KERNELS_VARIABLE, "").strip()
    if value and value.lower() not in (*KERNELS_OFF, *_KERNELS_ON):
        raise UserError(f"{KERNELS_VARIABLE} is {value!r}; set it to 0 for plain PyTorch, to 1, or unset it")
