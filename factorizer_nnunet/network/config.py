"""Every setting of the network in one frozen object, checked when it is built.

The names are those of nnU-Net's plans files (``features_per_stage``, ``strides``, ``kernel_sizes``); stages are
counted from the highest resolution, and each entry of ``strides`` is the downsampling on the way into its stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from factorizer_nnunet.network.nmf import NMFSettings
from factorizer_nnunet.network.positions import POSITIONS, SIZED_POSITIONS
from factorizer_nnunet.network.windows import axis_shifts

NORMS = ("instance", "layer", "rms")
ADAPTERS = ("pointwise", "conv")
BORDERS = ("cut", "cyclic")
DEPTHWISE = ("entry", "mlp", "none")
DEFAULT_WINDOW = 8
DOWNSAMPLINGS = ("patch", "overlap")


@dataclass(frozen=True, kw_only=True)
class FactorizerConfig:
    """Settings of a Factorizer; lengths and values are checked on construction.

    Raises:
        ValueError: a setting is impossible; the message names it, what came and what would be valid.
    """

    features_per_stage: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    n_blocks_per_stage: tuple[int, ...]
    n_blocks_per_stage_decoder: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]  # of the stem, the depthwise convolutions and "conv" adapters
    # NMF windows in voxels, None along an axis for all of it; instead of them the number of windows along each axis;
    # without either, windows of DEFAULT_WINDOW voxels an axis, or the whole axis where it is shorter.
    window_sizes: tuple[tuple[int | None, ...], ...] | None = None
    window_counts: tuple[tuple[int, ...], ...] | None = None
    head_dim: int | None = 8  # channels of one NMF matrix; None where num_heads is given
    num_heads: int | None = None  # matrices side by side in every stage, instead of head_dim
    shifts: tuple[float | tuple[float, ...], ...] = (0.0, 0.5)  # window offsets, in windows; of all axes, or for each
    num_shifts: int | None = None  # how many of the shifts are computed, evenly spread over them; None: all
    border: str = "cut"  # one of BORDERS: windows that cross the border are cut off, or go on at the opposite face
    rank: int = 1  # of the NMF, and its further settings, see ``nmf.NMFSettings``
    solver: str = "hals"
    start: str = "constant"
    num_iters: int = 5
    num_grad_steps: int | None = None
    eps: float | None = None
    mlp_ratio: float = 2.0
    dropout: float = 0.0  # of the MLP and of what the mixer adds
    drop_path: float = 0.0  # probability that a case skips the last block's branches; rises linearly with depth
    position: str = "none"  # one of positions.POSITIONS, at the lowest resolution
    patch_size: tuple[int, ...] | None = None  # voxels; needed by what stores a value per voxel (position, start)
    checkpointing: bool = False  # recompute blocks in the backward pass instead of keeping their activations
    norm: str = "instance"  # one of NORMS
    depthwise: str = "entry"  # one of DEPTHWISE: a residual depthwise convolution first in every block, or in its MLP
    downsample: str = "patch"  # one of DOWNSAMPLINGS: convolutions whose kernel is the stride, or kernel_sizes
    nmf_stages: tuple[bool, ...] | None = None  # stages, of encoder and decoder, whose blocks hold the NMF; None: all
    adapter: str = "pointwise"  # one of ADAPTERS: what merges a skip connection

    @property
    def _window_settings(self) -> list[str]:
        """Which of the two ways to say the windows is used, if any."""
        return [name for name in ("window_sizes", "window_counts") if getattr(self, name) is not None]

    @property
    def num_stages(self) -> int:
        """Number of resolutions, the bottleneck included."""
        return len(self.features_per_stage)

    @property
    def ndim(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.strides[0])

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Product of the strides per axis; a patch size must be divisible by it."""
        total = [1] * self.ndim
        for stride in self.strides:
            total = [t * s for t, s in zip(total, stride, strict=True)]
        return tuple(total)

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _freeze(getattr(self, field.name)))  # lists come from JSON
        self._check_types()
        self._check_lengths()
        self._check_shifts()
        self._check_stages()
        _require(self.border in BORDERS, "border", self.border, f"one of {list(BORDERS)}")
        _require(self.position in POSITIONS, "position", self.position, f"one of {list(POSITIONS)}")
        for name in ("dropout", "drop_path"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "a probability in [0, 1)")
        self._check_patch()
        self._check_rank()
        _require(self.mlp_ratio > 0, "mlp_ratio", self.mlp_ratio, "a positive number")
        _require(self.norm in NORMS, "norm", self.norm, f"one of {list(NORMS)}")
        _require(self.adapter in ADAPTERS, "adapter", self.adapter, f"one of {list(ADAPTERS)}")
        _require(self.depthwise in DEPTHWISE, "depthwise", self.depthwise, f"one of {list(DEPTHWISE)}")
        _require(self.downsample in DOWNSAMPLINGS, "downsample", self.downsample, f"one of {list(DOWNSAMPLINGS)}")

    def _check_shifts(self) -> None:
        _require(isinstance(self.shifts, tuple) and bool(self.shifts), "shifts", self.shifts, "a list of fractions")
        rows = [shift if isinstance(shift, tuple) else (shift,) * self.ndim for shift in self.shifts]
        numbers = all(isinstance(s, int | float) and 0 <= s < 1 for row in rows for s in row)
        _require(
            numbers and all(len(row) == self.ndim for row in rows),
            "shifts",
            self.shifts,
            f"fractions in [0, 1), or {self.ndim} of them for each shift",
        )
        _require(len(set(rows)) == len(rows), "shifts", self.shifts, "fractions that differ")
        # As parts of a window they must differ, too, and not round to 0 or to a whole window.
        columns = [[step / parts for step in steps] for parts, steps in axis_shifts(self.shifts, self.ndim)]
        exact = all(
            abs(a - b) < 1e-6 * (b > 0) or a == b
            for row, steps in zip(rows, zip(*columns, strict=True), strict=True)
            for a, b in zip(row, steps, strict=True)
        )
        _require(exact, "shifts", self.shifts, "fractions of small denominators, such as 0.25")
        used = self.num_shifts is None or 1 <= self.num_shifts <= len(rows)
        _require(used, "num_shifts", self.num_shifts, f"1 to {len(rows)}, the number of shifts, or null")

    def _check_types(self) -> None:
        _require(isinstance(self.checkpointing, bool), "checkpointing", self.checkpointing, "true or false")
        stages = self.nmf_stages
        booleans = stages is None or (isinstance(stages, tuple) and all(isinstance(s, bool) for s in stages))
        _require(booleans, "nmf_stages", stages, "true or false for each stage, or null")
        for name in ("rank", "num_iters"):
            _require(is_integer(getattr(self, name)), name, getattr(self, name), "an integer")
        for name in ("head_dim", "num_heads", "num_grad_steps", "num_shifts"):
            value = getattr(self, name)
            _require(value is None or is_integer(value), name, value, "an integer, or null")
        for name in ("mlp_ratio", "dropout", "drop_path"):
            _require(_is_number(getattr(self, name)), name, repr(getattr(self, name)), "a number")
        _require(self.eps is None or _is_number(self.eps), "eps", repr(self.eps), "a number, or null")
        patch = self.patch_size
        whole = patch is None or (isinstance(patch, tuple) and all(map(is_integer, patch)))
        _require(whole, "patch_size", patch, "whole numbers of voxels, one per axis, or null")
        for name in ("features_per_stage", "n_blocks_per_stage", "n_blocks_per_stage_decoder"):
            value = getattr(self, name)
            _require(isinstance(value, tuple) and all(map(is_integer, value)), name, value, "integers, one per stage")
        if self.window_sizes is not None and self.window_counts is not None:
            given = f"window_sizes={self.window_sizes}, window_counts={self.window_counts}"
            raise ValueError(f"{given}; valid: at most one of them, the other null")
        for name in ("strides", "kernel_sizes", *self._window_settings):
            value = getattr(self, name)
            nested = isinstance(value, tuple) and all(isinstance(entry, tuple) for entry in value)
            _require(nested, name, value, "a list per stage of one value per axis")
            whole = all(is_integer(v) or (v is None and name == "window_sizes") for entry in value for v in entry)
            _require(whole, name, value, "integers")

    def _check_lengths(self) -> None:
        _require(self.num_stages >= 1, "features_per_stage", self.features_per_stage, "one width per stage")
        expected = {
            "strides": self.num_stages,
            "kernel_sizes": self.num_stages,
            **dict.fromkeys(self._window_settings, self.num_stages),
            "n_blocks_per_stage": self.num_stages,
            "n_blocks_per_stage_decoder": self.num_stages - 1,
        }
        if self.nmf_stages is not None:
            expected["nmf_stages"] = self.num_stages
        for name, length in expected.items():
            _require(len(getattr(self, name)) == length, name, getattr(self, name), f"{length} entries, one per stage")
        _require(self.ndim in (2, 3), "strides", self.strides, "2 or 3 axes per stage")
        for name in ("strides", "kernel_sizes", *self._window_settings):
            entries = getattr(self, name)
            _require(all(len(e) == self.ndim for e in entries), name, entries, f"{self.ndim} values per stage")
            _require(all(v is None or v >= 1 for e in entries for v in e), name, entries, "integers of at least 1")
        _require(all(v == 1 for v in self.strides[0]), "strides", self.strides, "a first entry of ones")
        _require(all(k % 2 for e in self.kernel_sizes for k in e), "kernel_sizes", self.kernel_sizes, "odd sizes")

    def _check_stages(self) -> None:
        _require(all(n >= 0 for n in self.n_blocks_per_stage), "n_blocks_per_stage", self.n_blocks_per_stage, "counts")
        _require(
            all(n >= 0 for n in self.n_blocks_per_stage_decoder),
            "n_blocks_per_stage_decoder",
            self.n_blocks_per_stage_decoder,
            "counts",
        )
        if (self.head_dim is None) == (self.num_heads is None):
            raise ValueError(
                f"head_dim={self.head_dim}, num_heads={self.num_heads}; valid: one of them, the other null"
            )
        name = "num_heads" if self.head_dim is None else "head_dim"
        divisor = getattr(self, name)
        _require(divisor >= 1, name, divisor, "a positive integer")
        widths = self.features_per_stage
        _require(all(width >= 1 for width in widths), "features_per_stage", widths, "positive integers")
        for stage, width in enumerate(widths):
            if width % divisor and self.has_nmf(stage):
                divisors = [d for d in range(1, width + 1) if width % d == 0]
                raise ValueError(
                    f"{name}={divisor} does not divide the {width} channels of stage {stage}; valid: one of {divisors}"
                )
        parts = [parts for parts, _ in axis_shifts(self.shifts, self.ndim)]
        # Windows given by their count are rounded to whole parts instead, see ``stage_window``.
        for stage in range(self.num_stages if self.window_counts is None else 0):
            window = self.stage_window(stage)
            if self.has_nmf(stage) and any(
                w is not None and w > 1 and w % p for w, p in zip(window, parts, strict=True)
            ):
                raise ValueError(
                    f"window_sizes[{stage}]={list(window)} cannot be shifted by {list(self.shifts)} of a window; "
                    f"valid: 1 or multiples of {parts} along the axes"
                )

    def _check_patch(self) -> None:
        if self.patch_size is None:
            needing = {
                "position": self.position in SIZED_POSITIONS,
                "start": self.start == "uniform",
                "window_counts": self.window_counts is not None,
            }
            for name in (name for name, needs in needing.items() if needs):
                raise ValueError(f"{name}={getattr(self, name)} needs the size of the stages; valid: with patch_size")
            return
        total = self.total_stride
        fits = len(self.patch_size) == self.ndim and all(
            p >= t and p % t == 0 for p, t in zip(self.patch_size, total, strict=True)
        )
        _require(fits, "patch_size", self.patch_size, f"multiples of {list(total)}, the product of the strides")
        for stage in range(self.num_stages):
            self._check_windows(stage, self.stage_size(stage))

    def _check_windows(self, stage: int, size: tuple[int, ...]) -> None:
        if self.window_sizes is not None:
            window = self.window_sizes[stage]
            if any(w is not None and w > s for w, s in zip(window, size, strict=True)):
                raise ValueError(
                    f"window_sizes[{stage}]={list(window)} is larger than the {list(size)} voxels of its stage; "
                    "valid: at most as large, or null for the whole axis"
                )
        if self.window_counts is None:
            return
        counts = self.window_counts[stage]
        for count, voxels, window in zip(counts, size, self.stage_window(stage), strict=True):
            # Windows are balanced and made of whole parts, so not every count can be had.
            if window is not None and -(-voxels // window) != count:
                raise ValueError(
                    f"window_counts[{stage}]={list(counts)}: {voxels} voxels cannot be cut into {count} equal windows "
                    f"shifted by {list(self.shifts)} of a window; valid: 1, or fewer that divide {voxels}"
                )

    def _check_rank(self) -> None:
        mixing = [stage for stage in range(self.num_stages) if self.has_nmf(stage)]
        smallest = min((self.stage_head_dim(stage) for stage in mixing), default=self.nmf.rank)
        for stage in mixing:
            window = self.stage_window(stage)
            size = self.stage_size(stage) or window
            sides = [s if w is None else w if s is None else min(s, w) for s, w in zip(size, window, strict=True)]
            if None not in sides:
                smallest = min(smallest, math.prod(sides))
        _require(self.nmf.rank <= smallest, "rank", self.rank, f"at most {smallest}, the smaller side of a matrix")

    @property
    def num_used_shifts(self) -> int:
        """How many shifts are computed."""
        return len(self.shifts) if self.num_shifts is None else self.num_shifts

    def used_with(self, num_iters: int | None, num_shifts: int | None) -> FactorizerConfig:
        """The settings with other iterations and shifts, which weights do not depend on; None leaves them.

        Raises:
            ValueError: as for any settings.
        """
        changes: dict[str, int] = {}
        if num_iters is not None:
            changes["num_iters"] = num_iters
            if self.num_grad_steps is not None and is_integer(num_iters):  # it is at most all of them
                changes["num_grad_steps"] = min(self.num_grad_steps, max(1, num_iters))
        if num_shifts is not None:
            changes["num_shifts"] = num_shifts
        return replace(self, **changes)

    @property
    def nmf(self) -> NMFSettings:
        """The settings of the factorisation alone."""
        return NMFSettings(
            rank=self.rank,
            solver=self.solver,
            start=self.start,
            num_iters=self.num_iters,
            num_grad_steps=self.num_grad_steps,
            eps=self.eps,
        )

    @property
    def stored_patch_size(self) -> tuple[int, ...] | None:
        """Voxels of the only patch that the network takes, where it stores a value per voxel."""
        return self.patch_size if self.position in SIZED_POSITIONS or self.start == "uniform" else None

    def has_nmf(self, stage: int) -> bool:
        """Whether the blocks of this stage hold the NMF."""
        return self.nmf_stages is None or self.nmf_stages[stage]

    def stage_head_dim(self, stage: int) -> int:
        """Channels of one NMF matrix in this stage."""
        return self.features_per_stage[stage] // self.num_heads if self.head_dim is None else self.head_dim

    def stage_window(self, stage: int) -> tuple[int | None, ...]:
        """Voxels of a window of this stage per axis; None is the whole axis."""
        if self.window_sizes is not None:
            return self.window_sizes[stage]
        if self.window_counts is None:
            return (DEFAULT_WINDOW,) * self.ndim
        window = []
        shifts = axis_shifts(self.shifts, self.ndim)
        for count, voxels, (parts, _) in zip(self.window_counts[stage], self.stage_size(stage), shifts, strict=True):
            length = -(-voxels // count)
            window.append(None if count == 1 else 1 if length == 1 else -(-length // parts) * parts)
        return tuple(window)

    def stage_size(self, stage: int) -> tuple[int, ...] | None:
        """Voxels per axis of this stage, if the patch size is known."""
        if self.patch_size is None:
            return None
        size = self.patch_size
        for stride in self.strides[: stage + 1]:
            size = tuple(s // t for s, t in zip(size, stride, strict=True))
        return size


def is_integer(value: object) -> bool:
    """Whether a JSON value is a whole number written as one; True and 8.0 are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _freeze(value: object) -> object:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_freeze(v) for v in value)
    return value


def _require(condition: bool, name: str, value: object, valid: str) -> None:
    if not condition:
        raise ValueError(f"{name}={value} is impossible; valid: {valid}")
