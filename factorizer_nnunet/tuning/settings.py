"""A way to predict with a trained Factorizer, and which ways are compared."""

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
class Setting:
    """One way to predict.

    Attributes:
        num_iters: iterations of the NMF.
        num_shifts: shifts of its windows that are computed.
        mirroring: spatial axes along which images are mirrored, in all combinations; none: once as it is.
        tile_step_size: of the sliding window, as a fraction of the patch.
    """

    num_iters: int
    num_shifts: int
    mirroring: tuple[int, ...]
    tile_step_size: float

    @property
    def mirroring_words(self) -> str:
        """Such as ``none`` or ``0, 2``."""
        return ", ".join(map(str, self.mirroring)) or NONE


def as_trained(config: FactorizerConfig, mirroring_axes: Sequence[int] | None) -> Setting:
    """How the stock command predicts; all else is compared with it."""
    return Setting(
        num_iters=config.num_iters,
        num_shifts=config.num_used_shifts,
        mirroring=tuple(mirroring_axes or ()),
        tile_step_size=DEFAULT_TILE_STEP,
    )


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What is asked to be compared, each with each; None leaves it to the model.

    Attributes:
        iterations: by default one, and those of the training.
        shifts: by default one, two and all.
        mirroring: each ``none``, ``all`` or axes such as ``2`` or ``0,2``; by default none, the last axis, all.
        steps: of the tiles.
    """

    iterations: tuple[int, ...] | None = None
    shifts: tuple[int, ...] | None = None
    mirroring: tuple[str, ...] | None = None
    steps: tuple[float, ...] = DEFAULT_STEPS

    def settings(self, config: FactorizerConfig, mirroring_axes: Sequence[int] | None) -> list[Setting]:
        """All combinations, first the one of the stock command, which is always among them.

        Args:
            config: of the trained network.
            mirroring_axes: along which the training mirrored.

        Raises:
            UserError: the model does not have one of the choices; naming the option.
        """
        reference = as_trained(config, mirroring_axes)
        shifts = config.num_used_shifts
        iterations = self.iterations or (1, config.num_iters)
        counts = self.shifts or tuple(n for n in (1, 2, shifts) if n <= shifts)
        for option, knob, values in (("--iterations", "num_iters", iterations), ("--shifts", "num_shifts", counts)):
            for value in values:
                try:
                    config.used_with(**{"num_iters": None, "num_shifts": None, knob: value})
                except ValueError as error:
                    raise UserError(f"{option} {value}: {error}") from error
        for step in self.steps:
            if not is_tile_step(step):
                raise UserError(f"--step-sizes {step}: a step must be above 0 and at most 1; nnU-Net's is 0.5")
        axes = tuple(mirroring_axes or ())
        words = self.mirroring or (NONE, *map(str, axes[-1:]), ALL)
        mirrorings = [_mirroring(word, axes) for word in words]
        combined = [
            Setting(num_iters=i, num_shifts=s, mirroring=m, tile_step_size=float(t))
            for i, s, m, t in itertools.product(iterations, counts, mirrorings, self.steps)
        ]
        return list(dict.fromkeys((reference, *combined)))


def _mirroring(word: str, axes: tuple[int, ...]) -> tuple[int, ...]:
    if word in (ALL, NONE):
        return axes if word == ALL else ()
    names = word.split(",")
    chosen = tuple(axis for axis in axes if str(axis) in names)
    if len(chosen) < len(set(names)):
        along = f"axes {', '.join(map(str, axes))}" if axes else "no axis"
        raise UserError(
            f"--mirroring {word}: the training mirrored along {along}; valid: none, all, or some of its axes, as in 0,1"
        )
    return chosen
