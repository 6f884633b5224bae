"""The network's logits, plane by plane: sums of tiles are kept only for planes that later tiles still reach.

Tiles, their weights and the order of their sums are those of nnU-Net's ``predict_sliding_window_return_logits``, so one
fold gives its logits bit for bit. Several folds are averaged in each tile, and their sums have single precision: in
corners of an image all weights are near 0, where half precision is coarse.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from torch import Tensor, nn

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.prediction.tile_parts import PassWatcher, TilePart, TileParts

SIGMA_SCALE, MOST_WEIGHT = 1 / 8, 10  # of the tiles' weights, as in nnU-Net
EMPTY_LOGIT = 1.0  # of background, in parts that no tile covers; other classes have its negative
_CPU = torch.device("cpu")
_BLOCK = 1 << 24  # bytes written at once


@dataclass(frozen=True)
class TileOptions:
    """How tiles are taken and added up.

    Attributes:
        skip_empty: tiles in which each channel has one value are background, without the network.
        sums_folder: where files for the sums are; None: they are in memory.
    """

    skip_empty: bool = False
    sums_folder: Path | None = None


def check_logits(logits: Tensor) -> Tensor:
    """Return the output of the network, (classes, …), if all of it is finite.

    nnU-Net adds up outputs in half precision and notices infinity, but not the NaN that two infinities give: every
    comparison with NaN is false, so the segmentation would be empty.

    Raises:
        UserError: it contains NaN or infinity.
    """
    if not torch.isfinite(logits).all():
        raise UserError(
            "the output of the network contains NaN or infinity, so nothing can be segmented. Check the image's "
            "intensities; if only some cases fail on a GPU, half precision may overflow: try -device cpu"
        )
    return logits


def logit_planes(
    predictor: nnUNetPredictor,
    data: Tensor,
    options: TileOptions = TileOptions(),
    watcher: PassWatcher | None = None,
) -> Iterator[Tensor]:
    """Yield the logits of each plane along the first axis.

    Args:
        predictor: with the weights of one or several folds, which are averaged.
        data: (channels, z, y, x), preprocessed, float32.
        options: how tiles are taken and added up.
        watcher: sees every pass through the network, but no skipped tiles.

    Yields:
        (classes, y, x), half precision, on the GPU if the sums are there.

    Raises:
        UserError: the output of the network contains NaN or infinity, or the sums cannot be written to their folder.
        torch.OutOfMemoryError: the GPU has too little memory even with the sums in main memory.
    """
    patch = tuple(predictor.configuration_manager.patch_size)
    padded, unpadded = pad_nd_image(data, patch, "constant", {"value": 0}, True, None)
    depth, *plane = padded.shape[1:]
    steps = compute_steps_for_sliding_window(padded.shape[-len(patch) :], patch, predictor.tile_step_size)
    height = patch[0]
    if len(patch) == len(plane):  # 2D: a tile has one plane
        steps, height = [list(range(depth)), *steps], 1
    network = _Network.of(predictor)
    on_gpu = predictor.device.type == "cuda" and predictor.perform_everything_on_device and options.sums_folder is None
    sums = _Sums(
        classes=predictor.label_manager.num_segmentation_heads,
        precision=torch.half if len(network.folds) == 1 else torch.float,
        height=height,
        plane=tuple(plane),
        patch=patch,
        on_gpu=on_gpu,
        gpu=predictor.device,
        folder=options.sums_folder,
    )
    wanted = range(depth)[unpadded[1]]
    rows, columns = unpadded[2:]
    parts = TileParts(steps, (height, *patch[-2:]), padded.shape[1:], unpadded[1:])
    for start, until in zip(steps[0], [*steps[0][1:], depth], strict=True):
        for y, x in itertools.product(*steps[1:]):
            part = (slice(start, start + height), slice(y, y + patch[-2]), slice(x, x + patch[-1]))
            tile = padded[:, part[0], part[1], part[2]]
            if options.skip_empty and _is_empty(tile):
                continue
            own = None if watcher is None else parts.of((start, y, x))
            seen = None if watcher is None or own is None else _Seen(watcher, own)
            logits = network.logits(tile if len(patch) == len(part) else tile[:, 0], sums, seen)
            sums.add(logits if len(patch) == len(part) else logits[:, None], part)
        for row in range(start, until):
            logits = sums.pop(row)
            if row in wanted:
                yield check_logits(logits[:, rows, columns].half())


def _is_empty(tile: Tensor) -> bool:
    lowest, highest = tile.flatten(1).aminmax(dim=1)
    return bool((lowest == highest).all())


@dataclass(kw_only=True)
class _Sums:
    """Weighted sums of logits for as many planes as a tile has; plane z is in row ``z % height``."""

    classes: int
    precision: torch.dtype
    height: int
    plane: tuple[int, ...]
    patch: tuple[int, ...]
    on_gpu: bool
    gpu: torch.device
    folder: Path | None
    logits: Tensor = field(init=False)
    weights: Tensor = field(init=False)

    def __post_init__(self) -> None:
        try:
            self._allocate()
        except torch.OutOfMemoryError:
            if not self.on_gpu:
                raise
            self.on_gpu = False
            self._allocate()

    @property
    def device(self) -> torch.device:
        return self.gpu if self.on_gpu else _CPU

    def _allocate(self) -> None:
        shape = (self.height, *self.plane)
        if self.folder is None:
            self.logits = torch.zeros((self.classes, *shape), dtype=self.precision, device=self.device)
        else:
            self.logits = _zeros_on_disk((self.classes, *shape), self.precision, self.folder)
        self.weights = torch.zeros(shape, dtype=self.precision, device=self.device)

    def leave_gpu(self) -> None:
        """Continue in main memory."""
        self.on_gpu = False
        self.logits, self.weights = self.logits.cpu(), self.weights.cpu()
        torch.cuda.empty_cache()

    @torch.inference_mode()
    def add(self, logits: Tensor, part: tuple[slice, ...]) -> None:
        """Add a tile's logits, (classes, z, y, x), at a part of the image."""
        gaussian = compute_gaussian(self.patch, SIGMA_SCALE, MOST_WEIGHT, device=self.device).view(logits.shape[1:])
        logits = logits.to(self.device).mul_(gaussian)
        first = part[0].start % self.height
        wrapped = self.height - first  # planes of the tile up to the last row; the others begin at row 0
        for target, source in ((slice(first, None), slice(wrapped)), (slice(first), slice(wrapped, None))):
            self.logits[:, target, part[1], part[2]] += logits[:, source]
            self.weights[target, part[1], part[2]] += gaussian[source]

    def pop(self, row: int) -> Tensor:
        """The logits of a finished plane, whose place is then free; where no tile was, background."""
        sums, weights = self.logits[:, row % self.height], self.weights[row % self.height]
        logits = sums / weights
        empty = weights == 0
        if empty.any():
            logits[:, empty] = -EMPTY_LOGIT
            logits[0, empty] = EMPTY_LOGIT if self.classes > 1 else -EMPTY_LOGIT
        sums.zero_()
        weights.zero_()
        return logits


def _zeros_on_disk(shape: tuple[int, ...], precision: torch.dtype, folder: Path) -> Tensor:
    """Zeros in a file of a folder; it has no name, so nothing is left over however the process ends.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="sums-") as file:
            # All of its space now: at any later moment, a full disk would end the process.
            left = math.prod(shape) * precision.itemsize
            while left:
                left -= file.write(bytes(min(left, _BLOCK)))
            file.flush()
            flat = torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=precision)
            return flat.view(shape)
    except OSError as error:
        raise UserError(f"the sums of the tiles cannot be written to {folder} ({error.strerror})") from error


@dataclass(frozen=True)
class _Seen:
    """A tile that is watched; of a 2D network, as one with a single plane."""

    watcher: PassWatcher
    part: TilePart

    def one(self, fold: int, logits: Tensor) -> None:
        self.watcher.see_pass(fold, logits[0] if logits.ndim == 5 else logits[0, :, None])

    def mean(self, fold: int, logits: Tensor) -> None:
        self.watcher.see_fold(fold, logits[0] if logits.ndim == 5 else logits[0, :, None])


@dataclass
class _Network:
    """The mean of the folds' logits, each averaged over mirrored tiles."""

    module: nn.Module
    compiled: nn.Module  # the same, compiled where nnU-Net's setting says so
    folds: Sequence[Mapping[str, Tensor]]
    mirrored: list[tuple[int, ...]]  # axes of a tile with batch and channels
    device: torch.device

    @classmethod
    def of(cls, predictor: nnUNetPredictor) -> _Network:
        network = predictor.network.to(predictor.device).eval()
        module = getattr(network, "_orig_mod", network)
        axes = [axis + 2 for axis in predictor.allowed_mirroring_axes or ()] if predictor.use_mirroring else []
        mirrored = [chosen for size in range(len(axes)) for chosen in itertools.combinations(axes, size + 1)]
        own = module.state_dict()
        folds = [
            {name: weight.to(predictor.device, own[name].dtype) for name, weight in fold.items()}
            for fold in predictor.list_of_parameters
        ]
        if len(folds) == 1:
            module.load_state_dict(folds[0])
        return cls(module, network, folds, mirrored, predictor.device)

    def logits(self, tile: Tensor, sums: _Sums, seen: _Seen | None = None) -> Tensor:
        """(classes, *spatial) of a tile, (channels, *spatial); makes room on the GPU if it is full."""
        try:
            return self._mean(tile, seen)
        except torch.OutOfMemoryError:
            if not sums.on_gpu:
                raise
        # Outside the handler, whose error would keep the tensors of the failed attempt alive.
        print("not enough memory on the GPU: the sums of the tiles of this case are kept in main memory instead")
        sums.leave_gpu()
        return self._mean(tile, seen)

    def _mean(self, tile: Tensor, seen: _Seen | None = None) -> Tensor:
        images = tile[None].to(self.device, memory_format=torch.contiguous_format)
        precision = torch.autocast("cuda") if self.device.type == "cuda" else contextlib.nullcontext()
        total: Tensor | None = None
        if seen is not None:
            seen.watcher.begin(seen.part)
        with torch.inference_mode(), precision:
            for number, fold in enumerate(self.folds):
                if len(self.folds) > 1:  # without a copy
                    self.module.load_state_dict(fold, assign=True)
                logits = self._passes(images, number, seen)
                total = logits if total is None else total.add_(logits)
            assert total is not None
            if seen is not None:
                seen.watcher.end()
            return total[0] if len(self.folds) == 1 else total[0] / len(self.folds)

    def _passes(self, images: Tensor, fold: int, seen: _Seen | None) -> Tensor:
        """The mean of the passes of one fold, whose weights are in the network."""
        logits = self.compiled(images)
        if seen is not None:
            seen.one(fold, logits)
        for axes in self.mirrored:
            mirrored = self.compiled(images.flip(axes)).flip(axes)
            if seen is not None:
                seen.one(fold, mirrored)
            logits += mirrored
        logits /= len(self.mirrored) + 1
        if seen is not None:
            seen.mean(fold, logits)
        return logits
