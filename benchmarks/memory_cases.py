"""The plans on which the memory model is checked; small patches of what is planned at full size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from factorizer_nnunet.network import preset_arguments
from factorizer_nnunet.planning.architecture import factorizer_architecture


@dataclass(frozen=True)
class Case:
    """One plan, and the data it is for; ``form`` is the network's, or a published one with ``network``."""

    name: str
    patch_size: Sequence[int]
    batch_size: int
    channels: int
    classes: int
    spacing: Sequence[float] = (1.0, 1.0, 1.0)
    strides: Sequence[Sequence[int]] = ()
    widths: Sequence[int] = ()
    encoder: Sequence[int] = (1,)
    decoder: Sequence[int] = (1,)
    network: str = "default"
    changes: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Arguments of ``Factorizer``."""
        if self.network != "default":
            return {**preset_arguments(self.network, self.patch_size), **self.changes}
        unet = {"features_per_stage": list(self.widths), "strides": [list(s) for s in self.strides]}
        return {**factorizer_architecture(unet, self.spacing)["arch_kwargs"], **self.changes}


def _halved(stages: int, ndim: int = 3) -> list[list[int]]:
    return [[1] * ndim, *[[2] * ndim] * (stages - 1)]


CASES = (Case("3d", (48, 48, 48), 2, 1, 3, strides=_halved(4), widths=(32, 64, 128, 256)),)
