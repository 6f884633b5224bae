"""Every setting of the network, in one frozen object that is checked when it is built.

The names are those of nnU-Net's plans files (``features_per_stage``, ``strides``, ``kernel_sizes``). Stages are
counted from the highest resolution; each entry of ``strides`` is the downsampling into its stage.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from factorizer_nnunet.network.config_values import RULES, check_values, is_integer, is_number, require
from factorizer_nnunet.network.nmf import NMFSettings
from factorizer_nnunet.network.positions import SIZED_POSITIONS
from factorizer_nnunet.network.windows import axis_shifts

DEFAULT_WINDOW = 8
_LARGEST_LISTED_DIVISOR = 1024  # in messages; a plans file may name any width


@dataclass(frozen=True, kw_only=True)
class FactorizerConfig:
    """Settings of a Factorizer; values and lengths are checked on construction. Lists become tuples.

    ``from_settings`` takes the same names as plain JSON values and fills in settings that follow from others.

    Raises:
        ValueError: an invalid setting; the message names it, its value and what is expected.
    """

    features_per_stage: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    n_blocks_per_stage: tuple[int, ...]
    n_blocks_per_stage_decoder: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]  # of the stem, the depthwise convolutions and "conv" adapters
    # NMF windows, either as sizes in voxels (None along an axis for the full axis) or as numbers of windows per axis.
    # Without either, windows have DEFAULT_WINDOW voxels per axis, or the full axis where it is shorter.
    window_sizes: tuple[tuple[int | None, ...], ...] | None = None
    window_counts: tuple[tuple[int, ...], ...] | None = None
    head_dim: int | None = 8  # channels of one NMF matrix; None if num_heads is given
    num_heads: int | None = None  # NMF matrices per window, the same in every stage; instead of head_dim
    shifts: tuple[float | tuple[float, ...], ...] = (0.0, 0.5)  # window offsets, in windows; for all axes or per axis
    num_shifts: int | None = None  # how many of the shifts to compute, evenly spread over them; None: all
    border: str = "cut"  # one of BORDERS: windows across the border are cut off, or continue at the opposite face
    rank: int = 1  # of the NMF; for it and the next five settings see ``nmf.NMFSettings``
    solver: str = "hals"
    start: str = "constant"
    num_iters: int = 5
    num_grad_steps: int | None = None
    eps: float | None = None
    mlp_ratio: float = 2.0
    dropout: float = 0.0  # in the MLP and after the mixer
    drop_path: float = 0.0  # probability that a case skips the branches of the last block; rises linearly with depth
    position: str = "none"  # one of positions.POSITIONS, at the lowest resolution
    patch_size: tuple[int, ...] | None = None  # voxels; required by settings that store a value per voxel
    checkpointing: bool = False  # recompute blocks in the backward pass instead of keeping their activations
    norm: str = "instance"  # one of NORMS
    depthwise: str = "entry"  # one of DEPTHWISE: residual depthwise convolutions first in every block, or in its MLP
    n_conv_per_stage: tuple[int, ...] | None = None  # of these in a row in each block; None: one
    downsample: str = "patch"  # one of DOWNSAMPLINGS: convolutions with the stride as kernel, or with kernel_sizes
    nmf_stages: tuple[bool, ...] | None = None  # which stages, of encoder and decoder, have the NMF; None: all
    nmf_output: str = "add"  # one of NMF_OUTPUTS: a block adds the NMF's output to its input, or scales it by 0 to 2
    adapter: str = "pointwise"  # one of ADAPTERS: what merges a skip connection

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> FactorizerConfig:
        """Build a configuration from plain values, such as ``arch_kwargs`` of a plans file.

        If ``kernel_sizes``, ``n_blocks_per_stage`` or ``n_blocks_per_stage_decoder`` is missing or None, kernels have 3
        voxels per axis and stages one block.

        Raises:
            ValueError: a name is unknown or missing, or a value is invalid.
        """
        names = [field.name for field in fields(cls)]
        for name in settings:
            if name not in names:
                close = difflib.get_close_matches(name, names)
                expected = f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(names)}"
                raise ValueError(f"unknown setting {name!r}: {expected}")
        if missing := [name for name in ("features_per_stage", "strides") if name not in settings]:
            raise ValueError(f"missing setting {missing[0]!r}: give one entry per stage")
        strides = settings["strides"] if isinstance(settings["strides"], Sequence) else ()
        derived = {
            "kernel_sizes": [[3] * len(stride) if isinstance(stride, Sequence) else [] for stride in strides],
            "n_blocks_per_stage": [1] * len(strides),
            "n_blocks_per_stage_decoder": [1] * (len(strides) - 1),
        }
        return cls(**{**settings, **{name: value for name, value in derived.items() if settings.get(name) is None}})

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _freeze(getattr(self, field.name)))
        check_values(vars(self), RULES)
        self._check_lengths()
        self._check_shifts()
        self._check_heads()
        self._check_patch()
        nmf = self.nmf  # checks its settings
        for stage in range(self.num_stages):
            self._check_window(stage)
            if self.has_nmf(stage):
                self._check_parts(stage)
                self._check_rank(stage, nmf.rank)

    def _check_lengths(self) -> None:
        if self.window_sizes is not None and self.window_counts is not None:
            raise ValueError(
                f"invalid window_sizes={self.window_sizes}, window_counts={self.window_counts}: "
                "expected at most one of them, the other null"
            )
        per_axis = ("strides", "kernel_sizes", "window_sizes", "window_counts")
        lengths = dict.fromkeys((*per_axis, "n_blocks_per_stage", "n_conv_per_stage", "nmf_stages"), self.num_stages)
        for name, length in {**lengths, "n_blocks_per_stage_decoder": self.num_stages - 1}.items():
            value = getattr(self, name)
            require(value is None or len(value) == length, name, value, f"{length} entries, one per stage")
        require(self.ndim in (2, 3), "strides", self.strides, "2 or 3 axes per stage")
        require(set(self.strides[0]) == {1}, "strides", self.strides, "a first entry of ones")
        for name in per_axis:
            value = getattr(self, name)
            fits = value is None or all(len(entry) == self.ndim for entry in value)
            require(fits, name, value, f"{self.ndim} values per stage")

    def _check_shifts(self) -> None:
        require(isinstance(self.shifts, tuple) and bool(self.shifts), "shifts", self.shifts, "a list of fractions")
        rows = [shift if isinstance(shift, tuple) else (shift,) * self.ndim for shift in self.shifts]
        fractions = all(len(row) == self.ndim and all(is_number(s) and 0 <= s < 1 for s in row) for row in rows)
        expected = f"numbers in [0, 1), or lists of {self.ndim} of them"
        require(fractions, "shifts", self.shifts, expected)
        require(len(set(rows)) == len(rows), "shifts", self.shifts, "fractions that differ")
        # They must still differ as equal parts of a window, and not round to 0 or 1.
        columns = [[step / parts for step in steps] for parts, steps in axis_shifts(self.shifts, self.ndim)]
        exact = all(
            abs(shift - rounded) < 1e-6 * (rounded > 0) or shift == rounded
            for row, rounded_row in zip(rows, zip(*columns, strict=True), strict=True)
            for shift, rounded in zip(row, rounded_row, strict=True)
        )
        require(exact, "shifts", self.shifts, "fractions with small denominators, such as 0.25")
        used = self.num_used_shifts <= len(rows)
        require(used, "num_shifts", self.num_shifts, f"1 to {len(rows)}, the number of shifts, or null")

    def _check_heads(self) -> None:
        name, divisor = ("num_heads", self.num_heads) if self.head_dim is None else ("head_dim", self.head_dim)
        if divisor is None or None not in (self.head_dim, self.num_heads):
            raise ValueError(
                f"invalid head_dim={self.head_dim}, num_heads={self.num_heads}: expected one of them, the other null"
            )
        for stage, width in enumerate(self.features_per_stage):
            if width % divisor and self.has_nmf(stage):
                divisors = [d for d in range(1, min(width, _LARGEST_LISTED_DIVISOR) + 1) if width % d == 0]
                raise ValueError(
                    f"invalid {name}={divisor}: it does not divide the {width} channels of stage {stage}; "
                    f"expected one of {divisors}"
                )

    def _check_patch(self) -> None:
        if self.patch_size is None:
            sized = {
                "position": self.position in SIZED_POSITIONS,
                "start": self.start == "uniform",
                "window_counts": self.window_counts is not None,
            }
            for name in (name for name, needs_size in sized.items() if needs_size):
                raise ValueError(f"{name}={getattr(self, name)} needs the stage sizes: give patch_size, too")
            return
        total = self.total_stride
        fits = len(self.patch_size) == self.ndim and all(
            voxels % step == 0 for voxels, step in zip(self.patch_size, total, strict=True)
        )
        require(fits, "patch_size", self.patch_size, f"multiples of {list(total)}, the product of the strides")

    def _check_window(self, stage: int) -> None:
        """The windows of a stage must fit into it, if its size is known."""
        size = self.stage_size(stage)
        if size is None:
            return
        window = self.stage_window(stage)
        if self.window_sizes is not None and any(
            length is not None and length > voxels for length, voxels in zip(window, size, strict=True)
        ):
            raise ValueError(
                f"invalid window_sizes[{stage}]={list(window)}: larger than the {list(size)} voxels of the stage; "
                "expected at most these, or null for the full axis"
            )
        if self.window_counts is None:
            return
        counts = self.window_counts[stage]
        for count, voxels, length in zip(counts, size, window, strict=True):
            # Windows are balanced and consist of equal parts, so not every count is possible.
            if length is not None and -(-voxels // length) != count:
                raise ValueError(
                    f"invalid window_counts[{stage}]={list(counts)}: {voxels} voxels cannot be divided into {count} "
                    f"equal windows shifted by {list(self.shifts)} of a window; expected 1, or a smaller divisor"
                )

    def _check_parts(self, stage: int) -> None:
        """Windows must consist of equal parts by which they can be shifted; those given by number are made so."""
        window, parts = self.stage_window(stage), [parts for parts, _ in axis_shifts(self.shifts, self.ndim)]
        if self.window_counts is None and any(
            length is not None and length > 1 and length % p for length, p in zip(window, parts, strict=True)
        ):
            raise ValueError(
                f"invalid window_sizes[{stage}]={list(window)}: cannot be shifted by {list(self.shifts)} of a window; "
                f"expected 1 or multiples of {parts} along the axes"
            )

    def _check_rank(self, stage: int, rank: int) -> None:
        window = self.stage_window(stage)
        size = self.stage_size(stage) or window
        sides = [s if w is None else w if s is None else min(s, w) for s, w in zip(size, window, strict=True)]
        known = [side for side in sides if side is not None]
        smaller = self.stage_head_dim(stage)
        if len(known) == len(sides):
            smaller = min(smaller, math.prod(known))
        require(rank <= smaller, "rank", rank, f"at most {smaller}, the smaller side of a matrix of stage {stage}")

    @property
    def num_stages(self) -> int:
        """Number of resolutions, including the bottleneck."""
        return len(self.features_per_stage)

    @property
    def ndim(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.strides[0])

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Product of the strides per axis; the patch size must be divisible by it."""
        return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))

    @property
    def num_used_shifts(self) -> int:
        """Number of shifts that are computed."""
        return len(self.shifts) if self.num_shifts is None else self.num_shifts

    @property
    def nmf(self) -> NMFSettings:
        """The settings of the factorisation alone."""
        return NMFSettings(**{field.name: getattr(self, field.name) for field in fields(NMFSettings)})

    @property
    def stored_patch_size(self) -> tuple[int, ...] | None:
        """The only patch size (voxels) that the network accepts, if it stores a value per voxel."""
        return self.patch_size if self.position in SIZED_POSITIONS or self.start == "uniform" else None

    def used_with(self, num_iters: int | None, num_shifts: int | None) -> FactorizerConfig:
        """The configuration with other numbers of iterations and shifts, which no weight depends on; None keeps one.

        Raises:
            ValueError: a number is invalid.
        """
        iters = self.num_iters if num_iters is None else num_iters
        grad_steps = self.num_grad_steps
        if num_iters is not None and grad_steps is not None and is_integer(num_iters):
            grad_steps = min(grad_steps, max(1, num_iters))  # gradients flow through at most all iterations
        shifts = self.num_shifts if num_shifts is None else num_shifts
        return replace(self, num_iters=iters, num_grad_steps=grad_steps, num_shifts=shifts)

    def has_nmf(self, stage: int) -> bool:
        """Whether the blocks of a stage have the NMF."""
        return self.nmf_stages is None or self.nmf_stages[stage]

    def num_convs(self, stage: int) -> int:
        """Depthwise convolutions of a block of a stage."""
        if self.depthwise == "none":
            return 0
        return 1 if self.n_conv_per_stage is None else self.n_conv_per_stage[stage]

    def stage_head_dim(self, stage: int) -> int:
        """Channels of one NMF matrix in a stage."""
        return self.head_dim or self.features_per_stage[stage] // (self.num_heads or 1)

    def stage_size(self, stage: int) -> tuple[int, ...] | None:
        """Voxels per axis of a stage, or None if the patch size is unknown."""
        return None if self.patch_size is None else self.stage_sizes(self.patch_size)[stage]

    def stage_sizes(self, patch_size: Sequence[int]) -> list[tuple[int, ...]]:
        """Voxels per axis of every stage for patches of ``patch_size`` voxels."""
        sizes, size = [], tuple(int(length) for length in patch_size)
        for stride in self.strides:
            size = tuple(length // step for length, step in zip(size, stride, strict=True))
            sizes.append(size)
        return sizes

    def stage_window(self, stage: int) -> tuple[int | None, ...]:
        """Voxels of a window of a stage per axis; None is the full axis."""
        if self.window_sizes is not None:
            return self.window_sizes[stage]
        size = self.stage_size(stage)
        if self.window_counts is None or size is None:
            return (DEFAULT_WINDOW,) * self.ndim
        window: list[int | None] = []
        shifts = axis_shifts(self.shifts, self.ndim)
        for count, voxels, (parts, _) in zip(self.window_counts[stage], size, shifts, strict=True):
            length = -(-voxels // count)
            # A shifted window must consist of equal parts.
            window.append(None if count == 1 else 1 if length == 1 else -(-length // parts) * parts)
        return tuple(window)


def _freeze(value: object) -> object:
    """Lists, which JSON gives, as tuples."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_freeze(entry) for entry in value)
    return value
