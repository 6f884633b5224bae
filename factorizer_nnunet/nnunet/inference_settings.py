"""How much a trained Factorizer computes when it predicts: iterations and shifts of its NMF, also by the environment.

The variables are for commands that have no such options, foremost nnUNetv2_predict: our trainer, which builds the
network there, honours them. A training refuses them, or it would silently train another network than its plans say.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.network import Factorizer

ITERATIONS_VARIABLE = "nnUNet_factorizer_num_iters"
SHIFTS_VARIABLE = "nnUNet_factorizer_num_shifts"


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """What is asked for; None leaves the network's own.

    Attributes:
        num_iters: iterations of the NMF.
        num_shifts: how many of the shifts of its windows are computed, as in ``network.FactorizerConfig``.
    """

    num_iters: int | None = None
    num_shifts: int | None = None

    @property
    def are_set(self) -> bool:
        return self != InferenceSettings()

    def before(self, other: InferenceSettings) -> InferenceSettings:
        """These, and of ``other`` what is not set here."""
        return InferenceSettings(
            num_iters=other.num_iters if self.num_iters is None else self.num_iters,
            num_shifts=other.num_shifts if self.num_shifts is None else self.num_shifts,
        )

    def apply(self, network: nn.Module, model: str) -> None:
        """Let the network compute so from now on.

        Args:
            network: of the model.
            model: how to call it in messages.

        Raises:
            UserError: it is no Factorizer, or has no such iterations or shifts.
        """
        if not self.are_set:
            return
        if not isinstance(network, Factorizer):
            raise UserError(
                f"{model} is a {type(network).__name__}, no Factorizer: it has no iterations and shifts to choose. "
                f"Leave out --num-iters and --num-shifts, and unset {ITERATIONS_VARIABLE} and {SHIFTS_VARIABLE}"
            )
        try:
            network.use(self.num_iters, self.num_shifts)
        except ValueError as error:
            raise UserError(
                f"{model}: {error}. Correct --num-iters or --num-shifts, or {ITERATIONS_VARIABLE} or {SHIFTS_VARIABLE}"
            ) from error


def settings_from_environment(environment: Mapping[str, str] = os.environ) -> InferenceSettings:
    """What the variables ask for; one that is empty is not set.

    Raises:
        UserError: one is no whole number of at least 1.
    """
    return InferenceSettings(
        num_iters=_count(environment, ITERATIONS_VARIABLE, "iterations of the NMF"),
        num_shifts=_count(environment, SHIFTS_VARIABLE, "shifts of its windows"),
    )


def refuse_in_training(environment: Mapping[str, str] = os.environ) -> None:
    """Check that no variable is set.

    Raises:
        UserError: one is.
    """
    for variable in (ITERATIONS_VARIABLE, SHIFTS_VARIABLE):
        if environment.get(variable, "").strip():
            raise UserError(
                f"{variable} is set, to {environment[variable]!r}: it is for predictions, and a network trained with "
                f"it would not be what its plans say. Run: unset {variable}; to train so, edit the plans"
            )


def _count(environment: Mapping[str, str], variable: str, what: str) -> int | None:
    value = environment.get(variable, "").strip()
    if not value:
        return None
    if not (value.isascii() and value.isdecimal() and int(value) >= 1):
        raise UserError(f"{variable} is {value!r}; set it to a number of {what}, 1 or more, or unset it")
    return int(value)
