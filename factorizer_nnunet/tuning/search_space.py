"""Complete settings of a prediction with a trained Factorizer, and which of them are compared."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.network import FactorizerConfig
from factorizer_nnunet.nnunet.inference_settings import DEFAULT_TILE_STEP, is_tile_step

DEFAULT_STEPS = (0.5, 0.75, 1.0)
ALL, NONE = "all", "none"


@dataclass(frozen=True, kw_only=True, order=True)
class PredictionSettings:
    """All settings that ``tune-inference`` varies; unlike ``InferenceSettings``, none is left to the plans."""

    num_iters: int
    num_shifts: int
    mirroring: tuple[int, ...]  # spatial axes along which images are mirrored, in all combinations; may be empty
    tile_step_size: float  # of the sliding window, as a fraction of the patch

    @property
    def mirroring_text(self) -> str:
        """Such as ``none`` or ``0, 2``."""
        return ", ".join(map(str, self.mirroring)) or NONE


def stock_settings(config: FactorizerConfig, mirroring_axes: Sequence[int] | None) -> PredictionSettings:
    """How the stock command predicts; everything else is compared with it."""
    return PredictionSettings(
        num_iters=config.num_iters,
        num_shifts=config.num_used_shifts,
        mirroring=tuple(mirroring_axes or ()),
        tile_step_size=DEFAULT_TILE_STEP,
    )


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Values to compare, in every combination; None leaves them to the model."""

    iterations: tuple[int, ...] | None = None  # by default 1 and those of the training
    shifts: tuple[int, ...] | None = None  # by default 1, 2 and all
    mirroring: tuple[str, ...] | None = None  # each none, all or axes such as 0,2; by default none, the last axis, all
    steps: tuple[float, ...] = DEFAULT_STEPS  # of the sliding window

    def settings(self, config: FactorizerConfig, mirroring_axes: Sequence[int] | None) -> list[PredictionSettings]:
        """All combinations for a trained network; the first is always the stock command's.

        Raises:
            UserError: a value is invalid for the model; the message names the option.
        """
        iterations = self.iterations or (1, config.num_iters)
        shifts = self.shifts or tuple(n for n in (1, 2, config.num_used_shifts) if n <= config.num_used_shifts)
        checks = [("--iterations", n, (n, None)) for n in iterations] + [("--shifts", n, (None, n)) for n in shifts]
        for option, value, changes in checks:
            try:
                config.used_with(*changes)
            except ValueError as error:
                raise UserError(f"{option} {value}: {error}") from error
        for step in self.steps:
            if not is_tile_step(step):
                raise UserError(f"--step-sizes {step}: a step must be above 0 and at most 1; nnU-Net's is 0.5")
        axes = tuple(mirroring_axes or ())
        mirrorings = [_mirroring(text, axes) for text in self.mirroring or (NONE, *map(str, axes[-1:]), ALL)]
        combined = [
            PredictionSettings(num_iters=i, num_shifts=s, mirroring=m, tile_step_size=float(t))
            for i, s, m, t in itertools.product(iterations, shifts, mirrorings, self.steps)
        ]
        return list(dict.fromkeys((stock_settings(config, mirroring_axes), *combined)))


def _mirroring(text: str, axes: tuple[int, ...]) -> tuple[int, ...]:
    if text in (ALL, NONE):
        return axes if text == ALL else ()
    names = text.split(",")
    chosen = tuple(axis for axis in axes if str(axis) in names)
    if len(chosen) < len(set(names)):
        trained = f"axes {', '.join(map(str, axes))}" if axes else "no axis"
        raise UserError(
            f"--mirroring {text}: the training mirrored along {trained}; expected none, all, or some of its axes, such "
            "as 0,1"
        )
    return chosen
