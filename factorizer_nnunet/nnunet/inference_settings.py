"""How a trained model predicts: iterations and shifts of its NMF, and the step of the sliding window.

Iterations and shifts can also be set by environment variables, for commands that have no such options, above all
nnUNetv2_predict: there our trainer builds the network and obeys them. Trainings and exports refuse them, or they would
silently write another network than the plans describe. nnU-Net's plans and checkpoints have no place for the step, so a
model folder derived by ``tune-inference`` keeps it in a file of its own, which ``factorizer-nnunet predict`` reads;
nnU-Net's commands take it as ``-step_size``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from torch import nn

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.nnunet.model_folder import ModelFolder

ITERATIONS_VARIABLE = "nnUNet_factorizer_num_iters"
SHIFTS_VARIABLE = "nnUNet_factorizer_num_shifts"
DEFAULT_TILE_STEP = 0.5  # nnU-Net's


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """What a Factorizer computes when it predicts; None leaves what its plans say.

    Attributes:
        num_iters: NMF iterations.
        num_shifts: how many of the window shifts are computed, as in ``network.FactorizerConfig``.
    """

    num_iters: int | None = None
    num_shifts: int | None = None

    @property
    def are_set(self) -> bool:
        """Whether anything differs from the plans."""
        return self != InferenceSettings()

    def or_else(self, other: InferenceSettings) -> InferenceSettings:
        """These settings, filled in from ``other`` where they are None."""
        return InferenceSettings(
            num_iters=other.num_iters if self.num_iters is None else self.num_iters,
            num_shifts=other.num_shifts if self.num_shifts is None else self.num_shifts,
        )

    def apply(self, network: nn.Module, model: str) -> None:
        """Set what the network computes from now on.

        Args:
            network: the model's network.
            model: its name in error messages.

        Raises:
            UserError: the network is not a Factorizer, or does not have so many iterations or shifts.
        """
        if not self.are_set:
            return
        if not isinstance(network, Factorizer):
            raise UserError(
                f"{model} is a {type(network).__name__}, not a Factorizer: it has no iterations and shifts to choose. "
                f"Leave out --num-iters and --num-shifts, and unset {ITERATIONS_VARIABLE} and {SHIFTS_VARIABLE}"
            )
        try:
            network.use(self.num_iters, self.num_shifts)
        except ValueError as error:
            raise UserError(
                f"{model}: {error}. Correct --num-iters or --num-shifts, or {ITERATIONS_VARIABLE} or {SHIFTS_VARIABLE}"
            ) from error


def settings_from_environment(environment: Mapping[str, str] = os.environ) -> InferenceSettings:
    """The settings in the environment variables; empty variables count as unset.

    Raises:
        UserError: a value is not an integer of at least 1.
    """
    return InferenceSettings(
        num_iters=_count(environment, ITERATIONS_VARIABLE, "NMF iterations"),
        num_shifts=_count(environment, SHIFTS_VARIABLE, "window shifts"),
    )


def refuse_in_training(environment: Mapping[str, str] = os.environ) -> None:
    """Check that no variable is set.

    Raises:
        UserError: one is.
    """
    _refuse(environment, "a network trained with it", "to train with other values, edit the plans")


def refuse_in_export(environment: Mapping[str, str] = os.environ) -> None:
    """Check that no variable is set.

    Raises:
        UserError: one is.
    """
    _refuse(environment, "a network exported with it", "to export other values, derive a model with tune-inference")


def is_tile_step(value: object) -> TypeGuard[float]:
    """Whether a value can be the step of the sliding window, as a fraction of the patch."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


def tile_step_of(model: ModelFolder) -> float:
    """The step for a model folder: nnU-Net's unless the folder has a file that says otherwise.

    Raises:
        UserError: the file cannot be used.
    """
    file = model.inference_file
    if not file.exists():
        return DEFAULT_TILE_STEP
    fix = "Correct it, or remove it to predict with nnU-Net's step"
    step = load_json_object(file, fix).get("tile_step_size")
    if not is_tile_step(step):
        raise UserError(f"{file}: tile_step_size {step!r} must be above 0 and at most 1. {fix}")
    return float(step)


def _refuse(environment: Mapping[str, str], network: str, advice: str) -> None:
    for variable in (ITERATIONS_VARIABLE, SHIFTS_VARIABLE):
        if environment.get(variable, "").strip():
            raise UserError(
                f"{variable} is set to {environment[variable]!r}: it is for predictions only, {network} would not "
                f"match its plans. Run: unset {variable}; {advice}"
            )


def _count(environment: Mapping[str, str], variable: str, what: str) -> int | None:
    value = environment.get(variable, "").strip()
    if not value:
        return None
    if not (value.isascii() and value.isdecimal() and int(value) >= 1):
        raise UserError(f"{variable} is {value!r}; set it to a number of {what}, 1 or more, or unset it")
    return int(value)
