"""Batches for nnU-Net's training loop, augmented on the device one step ahead of the training."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from factorizer_nnunet.training.augmentation.loader import BOX_PARTS, BoxLoader
from factorizer_nnunet.training.augmentation.pipeline import DividedPipeline, divide
from factorizer_nnunet.training.augmentation.unsupported import UnsupportedError

_QUIET_SECONDS = 0.3  # after which no more batches come from paused workers
Batch = dict[str, Any]  # of nnU-Net's training steps: data, target, keys
StockAugmenter: TypeAlias = Any  # NonDetMultiThreadedAugmenter or SingleThreadedAugmenter, which have no types


class DeviceAugmenter:
    """Takes the place of the augmenter that nnU-Net's trainer made, with the same workers, and gives the same batches.

    On CUDA, boxes are copied and transformed on a stream of their own while the step before runs. If the device's
    memory is too small for it, nnU-Net's augmenter continues, and ``log`` gets a line.

    Raises:
        UnsupportedError: the loader or its pipeline cannot be divided; nothing has been changed then.
    """

    def __init__(self, stock: StockAugmenter, device: torch.device, log: Callable[[str], None]) -> None:
        loader = _loader_of(stock)
        self._pipeline: DividedPipeline = divide(loader.transforms)
        self._stock, self._device, self._log = stock, device, log
        _finish(stock)
        self._boxes = _with_loader(stock, BoxLoader(loader, self._pipeline.draws))
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead: tuple[Batch, torch.cuda.Event] | None = None
        self._is_active = True

    @property
    def is_active(self) -> bool:
        """Whether the device augments; if not, nnU-Net's augmenter continues."""
        return self._is_active

    def __next__(self) -> Batch:
        """The next batch on the device: ``data`` (B, C, *patch), ``target``, ``keys``."""
        if self._is_active:
            with contextlib.suppress(torch.OutOfMemoryError):
                return self._augment(next(self._boxes)) if self._stream is None else self._next_from(self._stream)
            self.return_to_workers()  # only now: the error kept what had been made of the batch
            self._log(f"{self._device} has too little memory for augmentation: the workers augment from now on")
        return next(self._stock)

    def return_to_workers(self) -> None:
        """Let nnU-Net's augmenter continue, and free what augmentation has on the device."""
        if not self._is_active:
            return
        self._is_active, self._ahead = False, None
        _finish(self._boxes)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def finish(self) -> None:
        """End the workers."""
        self._ahead = None
        _finish(self._boxes)
        _finish(self._stock)

    def _next_from(self, stream: torch.cuda.Stream) -> Batch:
        batch, done = self._ahead or self._augment_on(stream)
        self._ahead = self._augment_on(stream)
        current = torch.cuda.current_stream(self._device)
        current.wait_event(done)
        targets = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
        for tensor in (batch["data"], *targets):
            tensor.record_stream(current)  # made on the other stream: not to be reused before the step is done
        return batch

    def _augment_on(self, stream: torch.cuda.Stream) -> tuple[Batch, torch.cuda.Event]:
        boxes = next(self._boxes)
        with torch.cuda.stream(stream):
            return self._augment(boxes), stream.record_event()

    def _augment(self, boxes: dict[str, Any]) -> Batch:
        return transformed_batch(self._pipeline, boxes, self._device)


def transformed_batch(pipeline: DividedPipeline, boxes: dict[str, Any], device: torch.device) -> Batch:
    """The batch that nnU-Net's loader would give, on the device, from a batch of ``BoxLoader``; a sample at a time."""
    samples = [
        pipeline.transform(image.to(device, non_blocking=True), labels.to(device, non_blocking=True), pad, affine)
        for image, labels, pad, affine in zip(*(boxes[part] for part in BOX_PARTS), strict=True)
    ]
    images, targets = zip(*samples, strict=True)
    target = [torch.stack(scale) for scale in zip(*targets, strict=True)] if isinstance(targets[0], list) else None
    return {
        "data": torch.stack(images),
        "target": torch.stack(targets) if target is None else target,
        "keys": boxes["keys"],
    }


def augment_on_device(
    stock: StockAugmenter, device: torch.device, log: Callable[[str], None]
) -> DeviceAugmenter | StockAugmenter:
    """The augmenter for the device, or ``stock`` and a line in the log that says what cannot be done there."""
    reason = why_unsupported(stock)
    if reason is not None:
        log(f"{reason}: the workers augment")
        return stock
    augmenter = DeviceAugmenter(stock, device, log)
    next(augmenter._boxes)  # starts the workers, as nnU-Net does
    return augmenter


def device_augments(loader: DeviceAugmenter | StockAugmenter | None) -> bool:
    """Whether a trainer's loader augments on the device now."""
    return isinstance(loader, DeviceAugmenter) and loader.is_active


def why_unsupported(stock: StockAugmenter) -> str | None:
    """What of nnU-Net's augmenter or its pipeline is not known to the device; None if all is."""
    try:
        divide(_loader_of(stock).transforms)
    except UnsupportedError as reason:
        return f"{reason} is not known to augmentation on the device"
    return None


def prepared_batches(loader: DeviceAugmenter | StockAugmenter | None) -> int:
    """Most batches that the workers of a trainer's loader have made ahead."""
    if isinstance(loader, DeviceAugmenter):
        loader = loader._boxes if loader.is_active else loader._stock
    if not isinstance(loader, NonDetMultiThreadedAugmenter):
        return 0
    return 2 * loader.num_cached + loader.num_processes  # both queues, and one in each worker


def end_workers(loader: DeviceAugmenter | StockAugmenter | None) -> None:
    """End the workers of a trainer's loader, if there are any."""
    if isinstance(loader, DeviceAugmenter):
        loader.finish()
    else:
        _finish(loader)


def _loader_of(stock: StockAugmenter) -> nnUNetDataLoader:
    if type(stock) is NonDetMultiThreadedAugmenter:
        loader = stock.generator
    elif type(stock) is SingleThreadedAugmenter:
        loader = stock.data_loader
    else:
        raise UnsupportedError(f"the augmenter {type(stock).__name__}")
    if type(loader) is not nnUNetDataLoader or stock.transform is not None:
        raise UnsupportedError(f"the data loader {type(loader).__name__}")
    return loader


def _with_loader(stock: StockAugmenter, loader: BoxLoader) -> StockAugmenter:
    """Another augmenter with the same settings; its workers start with the first batch."""
    if isinstance(stock, SingleThreadedAugmenter):
        return SingleThreadedAugmenter(loader, None)
    return NonDetMultiThreadedAugmenter(
        loader, None, stock.num_processes, stock.num_cached, stock.seeds, stock.pin_memory, stock.wait_time
    )


def _finish(augmenter: StockAugmenter | None) -> None:
    """End the workers; the next batch would start them again."""
    if not isinstance(augmenter, NonDetMultiThreadedAugmenter) or not augmenter.initialized:
        return
    # A worker that ends while a batch is being received from it causes a traceback. So they pause first.
    augmenter.pause_event.set()
    with contextlib.suppress(queue.Empty):
        while True:
            augmenter.results_loop_queue.get(timeout=_QUIET_SECONDS)
    augmenter._finish()  # as nnU-Net's trainer does
