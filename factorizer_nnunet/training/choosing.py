"""A trainer that measures how long it waits for its data, and with ``auto`` chooses by it who augments."""

from __future__ import annotations

from factorizer_nnunet.nnunet.environment import Augmentation
from factorizer_nnunet.training.augmentation.augmenter import (
    DeviceAugmenter,
    device_augments,
    prepared_batches,
    why_unsupported,
)
from factorizer_nnunet.training.augmentation_choice import (
    agreed,
    data_limit,
    describe_first_choice,
    describe_no_choice,
    describe_second_choice,
    describe_wait,
    device_is_faster,
)
from factorizer_nnunet.training.augmented import AugmentedTrainer, can_augment, checked_augmentation
from factorizer_nnunet.training.data_wait import DataWait, Measured


class ChoosingTrainer(AugmentedTrainer):
    """Logs once how long its first steps have waited for data; with ``auto``, that decides who augments.

    A choice is made between two epochs, by all processes together, and concerns training batches only. A training that
    is continued measures again, since it may have other workers or another GPU.
    """

    def initialize(self) -> None:
        """Initialize as usual."""
        self._data_wait = DataWait()
        self._chooses = False  # whether a choice is still open
        self._measured: Measured | None = None  # what is to decide
        self._by_workers: Measured | None = None  # what has decided for the device
        super().initialize()

    def on_train_start(self) -> None:
        """Start as usual."""
        super().on_train_start()
        self._data_wait = DataWait(prepared_batches(self.dataloader_train))
        self._chooses = checked_augmentation(self.device) is Augmentation.AUTO
        if self._chooses and not can_augment(self.device):
            self._chooses = False
            self.print_to_log_file(f"auto: {self.device.type} cannot augment: the workers do")

    def on_train_epoch_start(self) -> None:
        """Start an epoch as usual, after a choice if something was measured for it."""
        measured, self._measured = self._measured, None
        if measured is not None:
            self._choose(agreed(measured, self.device))
        super().on_train_epoch_start()
        self._data_wait.epoch_begins()

    def train_step(self, batch: dict) -> dict:
        """Run a step as usual; after some of them it is known how long they wait for data."""
        self._data_wait.step_begins()
        output = super().train_step(batch)
        measured = self._data_wait.step_ends()
        if measured is not None and self._chooses:
            self._measured = measured
        elif measured is not None:
            self._log_wait(measured)
        return output

    def on_train_end(self) -> None:
        """End as usual; if a choice is still open, what was measured is logged, or that the training was too short."""
        if self._measured is not None:
            self._log_wait(self._measured)
        elif self._chooses:
            self.print_to_log_file(describe_no_choice(not device_augments(self.dataloader_train)))
        super().on_train_end()

    def _log_wait(self, measured: Measured) -> None:
        by_workers = not device_augments(self.dataloader_train)
        self.print_to_log_file(describe_wait(measured, self.device.type == "cuda", by_workers))

    def _choose(self, measured: Measured) -> None:
        before = self._by_workers
        if before is None:
            self._choose_first(measured)
        else:
            self._choose_again(measured, before)

    def _choose_first(self, measured: Measured) -> None:
        """Let the device augment if data limit, and be measured."""
        loader, limit = self.dataloader_train, data_limit(measured)
        obstacle = self.obstacle_of_any(why_unsupported(loader) or self.why_no_memory()) if limit else None
        self.print_to_log_file(describe_first_choice(measured, obstacle))
        self._chooses = limit and obstacle is None
        if self._chooses:
            self._by_workers = measured
            self.dataloader_train = DeviceAugmenter(loader, self.device, self.print_to_log_file)
            self._data_wait = DataWait(prepared_batches(self.dataloader_train))
            self._pace.forget()

    def _choose_again(self, measured: Measured, before: Measured) -> None:
        """Let the workers augment again if the device has turned out not to be faster."""
        self._chooses = False
        if not device_augments(self.dataloader_train):  # its memory has run out
            self._log_wait(measured)
            return
        self.print_to_log_file(describe_second_choice(measured, before))
        if not device_is_faster(measured, before):
            self.dataloader_train.return_to_workers()
            self._pace.forget()
