"""How much memory the prediction of a case takes, and how many processes fit into what there is.

The sizes are those of the arrays that nnU-Net's preprocessing, the sliding window and the export have at the same time.
``tests/prediction/test_memory.py`` compares them with what is allocated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from factorizer_nnunet.prediction.description import ModelDescription

PROCESS = 500_000_000  # bytes of Python with torch and nnU-Net, before any image
RESERVE = 0.1  # of the free memory, left to others
_HALF, _SINGLE, _DOUBLE = 2, 4, 8
_SPLINE_MARGIN = 12  # voxels that SciPy adds on each side
# Feature maps of the first stage at the same time: of the encoder, upsampled, both concatenated (2), the result, and
# one more for the work of an operator.
_FEATURE_MAPS = 6


@dataclass(frozen=True)
class MemoryLimit:
    """What a prediction may take in all.

    Attributes:
        size: bytes of main memory.
        on_gpu: whether feature maps and sums are on a GPU.
        sums_on_disk: whether sums are in files.
    """

    size: int
    on_gpu: bool
    sums_on_disk: bool = False


@dataclass(frozen=True)
class CaseMemory:
    """Bytes that a case takes at most in each of its stages, without those of a process.

    Attributes:
        reading: while it is read and preprocessed.
        waiting: once it is preprocessed.
        predicting: while its tiles are predicted and its labels decided, with the preprocessed image.
        writing: while its segmentation is written.
    """

    reading: int
    waiting: int
    predicting: int
    writing: int

    def of_processes(self, readers: int, writers: int) -> int:
        """Bytes of all processes; with none for a stage, the main process does its work in turn."""
        alone = max(self.predicting, 0 if readers else self.reading, 0 if writers else self.writing)
        others = readers * (PROCESS + self.reading + self.waiting) + writers * (PROCESS + 2 * self.writing)
        return PROCESS + alone + others


def case_memory(
    shape: Sequence[int],
    spacing: Sequence[float],
    model: ModelDescription,
    probabilities: bool = False,
    limit: MemoryLimit | None = None,
    compared: int = 0,
) -> CaseMemory:
    """Estimate the memory of a case.

    Args:
        shape: of the image, in the axis order of the network.
        spacing: mm, likewise.
        model: which predicts.
        probabilities: whether the logits of all classes on the network's grid are needed.
        limit: says what is on a GPU or on disk, which is not counted; None: all is in main memory.
        compared: number of folds, or of mirrored passes of a single one, whose labels are kept to be compared.
    """
    settings = model.configuration
    target = [*spacing[: len(spacing) - len(settings.spacing)], *settings.spacing]
    resampled = [max(1, round(size * mm / to)) for size, mm, to in zip(shape, spacing, target, strict=True)]
    patch = [*[1] * (len(shape) - len(settings.patch_size)), *settings.patch_size]
    padded = [max(pair) for pair in zip(resampled, patch, strict=True)]
    before, after = math.prod(shape), math.prod(padded)
    channels, classes = len(model.dataset.channel_names), model.labels.num_segmentation_heads
    is_resampled = list(shape) != resampled
    # The image, nnU-Net's copy of it, another while it is read or normalised, and masks. Resampling needs a copy in
    # double precision, and one channel twice within the spline filter, with a margin, and once after it.
    reading = before * (3 * _SINGLE * channels + 3)
    if is_resampled:
        filtered = math.prod(size + 2 * _SPLINE_MARGIN for size in shape)
        reading += before * _DOUBLE * channels + 2 * filtered * _DOUBLE + after * (_SINGLE * channels + _DOUBLE)
    waiting = after * _SINGLE * model.num_input_channels
    width = (settings.network_arch_init_kwargs.get("features_per_stage") or [32])[0]
    maps = math.prod(patch) * _SINGLE * (_FEATURE_MAPS * int(width) + 3 * classes)
    sums = (classes + 1) * patch[0] * math.prod(padded[1:]) * _SINGLE  # of one fold: half of that
    label_bytes = 1 if len(model.labels.foreground_labels) < 255 else 2
    labels = 2 * before * label_bytes
    predicting, writing = 2 * waiting + labels, 2 * labels
    if limit is None or not limit.on_gpu:
        predicting += maps + (0 if limit is not None and limit.sums_on_disk else sums)
    if probabilities:
        predicting += classes * after * _HALF
        # The sum over classes, one class while it is resampled along the last axis (2) or in the frame of the image.
        writing += classes * after * _HALF + 4 * before * _SINGLE
    if compared:  # labels of each, where passes disagree, and masks of all regions in the tile's own part
        on_gpu = limit is not None and limit.on_gpu
        kept = (compared + 1) * after + (0 if on_gpu else 2 * compared * classes * math.prod(patch))
        predicting, writing = predicting + kept, writing + (compared + 2) * after
    return CaseMemory(reading, waiting, predicting, writing)


def together(models: Sequence[CaseMemory]) -> CaseMemory:
    """What a case takes that several models predict in one pass.

    Args:
        models: what it takes with each of them alone.
    """
    waiting = sum(one.waiting for one in models)
    return CaseMemory(
        reading=max(one.reading + waiting - one.waiting for one in models),
        waiting=waiting,
        predicting=sum(one.predicting for one in models),
        writing=max(one.writing for one in models),
    )


def processes_within(case: CaseMemory, limit: int, readers: int, writers: int) -> tuple[int, int]:
    """The numbers of processes to read and to write that fit, as many as are wanted if possible; (0, 0) in any case."""
    choices = itertools.product(range(readers + 1), range(writers + 1))
    best_first = sorted(choices, key=lambda pair: (min(pair), sum(pair)), reverse=True)
    return next((pair for pair in best_first if case.of_processes(*pair) <= limit), (0, 0))
