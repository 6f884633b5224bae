"""A trainer that leaves out channels of its samples, for models that predict without some of them.

Channels are left out of a complete batch, after all augmentation, wherever that took place: an absent channel is then
exactly 0, as in predictions. In a cascade the channels of the previous stage always stay. Epochs are validated on all
channels that a case has, and so is the fold at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.nnunet.absent_channels import CHECKPOINT_KEY, advice_for, channel_factors, leave_out
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.names import CHANNEL_DROP
from factorizer_nnunet.training.choosing import ChoosingTrainer

# The probability that a sample keeps all channels of its case. Otherwise the number of channels that are left out is
# uniform among 1, …, channels - 1, and so is the choice of these channels. Other values were not compared.
KEEP_ALL = 0.5


class ChannelDropTrainer(ChoosingTrainer):
    """Leaves out channels if ``budget.channel_drop`` is set; its checkpoints say so.

    Channels that ``dataset.json`` declares absent in a case are always left out then, in the validation, too.
    """

    def initialize(self) -> None:
        """Initialize as usual."""
        dataset = DatasetJson(self.dataset_json)
        self._num_image_channels = len(dataset.channel_names)
        self._absent = dataset.absent_channels
        super().initialize()
        if self.budget.channel_drop:
            self.print_to_log_file(
                f"Channels are left out of {1 - KEEP_ALL:.0%} of the training samples; "
                f"{count_of(len(self._absent), 'case')} without some channels"
            )

    def train_step(self, batch: dict) -> dict:
        """Run a step as usual, on samples that may lack channels."""
        return super().train_step(self._as_seen(batch, drops=True))

    def validation_step(self, batch: dict) -> dict:
        """Run a step as usual, on samples with all channels of their cases."""
        return super().validation_step(self._as_seen(batch, drops=False))

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate as usual, on all channels of the cases."""
        stock = self.dataset_class
        if self.budget.channel_drop and self._absent:
            self.dataset_class = dataset_as_seen(stock, self._absent)
        try:
            super().perform_actual_validation(save_probabilities)
        finally:
            self.dataset_class = stock

    def own_entries(self) -> dict[str, Any]:
        """Say in a checkpoint that channels were left out."""
        return {**super().own_entries(), **({CHECKPOINT_KEY: True} if self.budget.channel_drop else {})}

    def _as_seen(self, batch: dict, drops: bool) -> dict:
        if not self.budget.channel_drop:
            return batch
        existing = [present_channels(self._absent.get(case, ()), self._num_image_channels) for case in batch["keys"]]
        present = np.stack([draw_present(channels) if drops else channels for channels in existing])
        data = batch["data"].to(self.device, non_blocking=True)
        return {**batch, "data": data if present.all() else without_channels(data, present)}


def present_channels(absent: Collection[int], num_channels: int) -> np.ndarray:
    """Which channels a case has, (channels,), from the numbers of those that it lacks."""
    return np.array([number not in absent for number in range(num_channels)])


def draw_present(existing: np.ndarray) -> np.ndarray:
    """Which channels a training sample keeps, (channels,), of those that its case has: one at least."""
    numbers = np.flatnonzero(existing)
    if len(numbers) < 2 or np.random.random() < KEEP_ALL:
        return existing
    kept = existing.copy()
    kept[np.random.choice(numbers, np.random.randint(1, len(numbers)), replace=False)] = False
    return kept


def without_channels(data: Tensor, present: np.ndarray) -> Tensor:
    """Samples as the network sees them without some channels, see ``absent_channels``.

    Args:
        data: (batch, channels, *spatial); channels after those of the image, as a cascade has them, stay as they are.
        present: (batch, image channels), bool.
    """
    seen = data.clone()
    for sample, factors in zip(seen, channel_factors(present).tolist(), strict=True):
        for channel, factor in zip(sample, factors, strict=False):  # numbers of the host: no copy waits for the device
            if factor:
                channel.mul_(factor)
            else:
                channel.zero_()
    return seen


def dataset_as_seen(stock: Any, absent: Mapping[str, frozenset[int]]) -> Any:
    """A subclass of nnU-Net's reader of preprocessed cases whose images are as the network sees them."""

    class DatasetAsSeen(stock):
        def load_case(self, identifier: str) -> tuple[Any, ...]:
            data, *others = super().load_case(identifier)
            if identifier in absent:
                data = leave_out(np.array(data[:]), absent[identifier])
            return (data, *others)

    return DatasetAsSeen


def check_channels(dataset_json: Mapping[str, Any], drops: bool, trainer: str) -> None:
    """Check that channels can be left out; print a warning if cases lack some that the trainer takes for images of 0.

    Raises:
        UserError: there is only one channel, or ``absent_channels`` has another form.
    """
    dataset = DatasetJson(dict(dataset_json))
    names, absent = dataset.channel_names, dataset.absent_channels
    if drops and len(names) < 2:
        raise UserError(
            f"{trainer} leaves out channels, but the data set has only one: {', '.join(names)}. Train with "
            f"{trainer.replace(CHANNEL_DROP, '')}"
        )
    if absent and not drops:
        print(
            f"WARNING: {count_of(len(absent), 'case')} without some channels: {trainer} takes these for images of 0. "
            f"{advice_for(trainer)}"
        )
