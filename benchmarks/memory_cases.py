"""The plans on which the memory model is checked; small patches of what is planned at full size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from factorizer_nnunet.network import variant_arguments
from factorizer_nnunet.planning.architecture import factorizer_architecture
from factorizer_nnunet.planning.sizes import SIZES, Size


@dataclass(frozen=True)
class Case:
    """One plan, and the data it is for; ``form`` is the network's, or a published one with ``variant``."""

    name: str
    patch_size: Sequence[int]
    batch_size: int
    channels: int
    classes: int
    spacing: Sequence[float] = (1.0, 1.0, 1.0)
    strides: Sequence[Sequence[int]] = ()
    widths: Sequence[int] = ()
    size: Size = SIZES["S"]
    variant: str = "default"
    changes: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Arguments of ``Factorizer``."""
        if self.variant != "default":
            return {**variant_arguments(self.variant, self.patch_size), **self.changes}
        unet = {"features_per_stage": list(self.widths), "strides": [list(s) for s in self.strides]}
        return {**factorizer_architecture(unet, self.spacing, self.size)["arch_kwargs"], **self.changes}


def _halved(stages: int, ndim: int = 3) -> list[list[int]]:
    return [[1] * ndim, *[[2] * ndim] * (stages - 1)]


_ANISOTROPIC = ([1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2])
_ALL = {"nmf_stages": [True] * 4}
_OTHER_LAYERS = {"adapter": "conv", "norm": "layer", "depthwise": "mlp"}
_M, _XL = SIZES["M"], SIZES["XL"]
_WIDTHS = (32, 64, 128, 256)

CASES = (
    Case("3D, 1 channel, 3 classes", (40, 40, 40), 2, 1, 3, strides=_halved(4), widths=_WIDTHS),
    Case("3D, 8 channels, 4 classes", (32, 40, 32), 2, 8, 4, strides=_halved(4), widths=_WIDTHS),
    Case("3D, 100 classes", (32, 32, 32), 1, 1, 100, strides=_halved(4), widths=_WIDTHS),
    Case("3D, 1 output", (40, 32, 40), 2, 2, 1, strides=_halved(3), widths=_WIDTHS[:3]),
    Case("3D, NMF from the first stage", (32, 32, 32), 2, 1, 3, strides=_halved(4), widths=_WIDTHS, changes=_ALL),
    Case(
        "3D, NMF from the second stage, 1 shift",
        (32, 32, 32),
        2,
        4,
        4,
        strides=_halved(4),
        widths=_WIDTHS,
        changes={"nmf_stages": [False, True, True, True], "shifts": [0.0]},
    ),
    Case(
        "3D, NMF everywhere, 4 shifts",
        (32, 32, 32),
        1,
        4,
        4,
        strides=_halved(4),
        widths=_WIDTHS,
        changes={**_ALL, "shifts": [0.0, 0.25, 0.5, 0.75]},
    ),
    Case(
        "3D, windows of 4",
        (32, 32, 32),
        2,
        1,
        3,
        strides=_halved(4),
        widths=_WIDTHS,
        changes={**_ALL, "window_sizes": [[4, 4, 4]] * 4},
    ),
    Case("3D, anisotropic", (12, 48, 48), 2, 2, 3, (5.0, 0.8, 0.8), strides=_ANISOTROPIC, widths=_WIDTHS),
    Case(
        "3D, anisotropic, NMF everywhere", (12, 48, 48), 2, 2, 3, (5.0, 0.8, 0.8), _ANISOTROPIC, _WIDTHS, changes=_ALL
    ),
    Case("3D, size M", (32, 32, 32), 2, 1, 3, strides=_halved(4), widths=(40, 80, 160, 320), size=_M),
    Case("3D, size XL", (24, 24, 24), 2, 1, 14, strides=_halved(3), widths=(64, 128, 256), size=_XL),
    Case(
        "3D, checkpointing", (32, 32, 32), 2, 1, 3, strides=_halved(4), widths=_WIDTHS, changes={"checkpointing": True}
    ),
    Case("2D, 3 channels", (160, 160), 4, 3, 2, (1.0, 1.0), strides=_halved(5, 2), widths=(*_WIDTHS, 512)),
    Case("2D, 40 classes, NMF everywhere", (96, 128), 4, 1, 40, (1.0, 1.0), _halved(4, 2), _WIDTHS, changes=_ALL),
    Case("2D, conv adapters, layer norm", (96, 96), 4, 1, 4, (0.5, 1.0), _halved(4, 2), _WIDTHS, changes=_OTHER_LAYERS),
    Case("published: swin", (32, 32, 32), 2, 4, 3, variant="swin"),
    Case("published: isles22_published", (32, 32, 32), 1, 2, 1, variant="isles22_published"),
)
