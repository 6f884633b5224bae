"""A trainer whose samples are augmented by the workers or on the device, as a variable says."""

from __future__ import annotations

from typing import Any

import torch

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.worker_pool import end_forked_workers_with_parent
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.environment import AUGMENTATION_VARIABLE, Augmentation, augmentation_setting
from factorizer_nnunet.planning.augmentation_memory import augmentation_bytes
from factorizer_nnunet.planning.memory import GB, estimate, is_modelled
from factorizer_nnunet.training.augmentation.augmenter import DeviceAugmenter, augment_on_device, end_workers
from factorizer_nnunet.training.data_wait import DataWait, Measured
from factorizer_nnunet.training.ranks import largest_of_all_ranks
from factorizer_nnunet.training.timed import TimedTrainer

_MUCH_WAITING = 0.2  # of the time; below, another way of augmentation gains little


class AugmentedTrainer(TimedTrainer):
    """Augments where ``nnUNet_factorizer_augmentation`` says, and logs how long the training waits for its data.

    Raises:
        UserError: the variable has a wrong value, or asks for a device that cannot augment.
    """

    def initialize(self) -> None:
        """Initialize as usual."""
        self._data_wait = DataWait()
        super().initialize()

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's loaders; on the device, if it has the memory, those that take their place and give such batches."""
        end_forked_workers_with_parent(self)
        loaders = super().get_dataloaders()
        if checked_augmentation(self.device) is not Augmentation.DEVICE:
            return loaders
        reason = why_no_memory(self._bytes_needed(), free_bytes(self.device))
        if largest_of_all_ranks(reason is not None, self.device):
            self.print_to_log_file(f"{reason or 'another GPU has too little memory'}: the workers augment")
            return loaders
        training, validation = (augment_on_device(one, self.device, self.print_to_log_file) for one in loaders)
        return training, validation

    def _bytes_needed(self) -> float:
        """Memory of augmentation on the device and of a training step, as far as that is modelled."""
        settings, labels = self.configuration_manager, self.label_manager
        patch = [int(size) for size in settings.patch_size]
        image = len(DatasetJson(self.dataset_json).channel_names)
        previous = self.num_input_channels - image
        targets = labels.num_segmentation_heads + 1 if labels.has_regions else 1
        needed = float(augmentation_bytes(patch, self.batch_size, image, previous, targets))
        network: Any = getattr(self.network, "module", self.network)  # of several processes
        network = getattr(network, "_orig_mod", network)  # of torch.compile
        if isinstance(network, Factorizer) and is_modelled(network.config):
            heads = labels.num_segmentation_heads
            needed += estimate(network.config, patch, self.batch_size, self.num_input_channels, heads).step
        return needed

    def run_training(self) -> None:
        """Train as usual. Where the training fails or is stopped, the workers end first, or each prints a traceback."""
        try:
            super().run_training()
        except BaseException:
            for loader in (self.dataloader_train, self.dataloader_val):
                end_workers(loader)
            raise

    def on_train_epoch_start(self) -> None:
        """Start an epoch as usual."""
        super().on_train_epoch_start()
        self._data_wait.epoch_begins()

    def train_step(self, batch: dict) -> dict:
        """Run a step as usual; after some of them, the log says how long they wait for data."""
        self._data_wait.step_begins()
        output = super().train_step(batch)
        measured = self._data_wait.step_ends()
        if measured is not None:
            by_workers = not isinstance(self.dataloader_train, DeviceAugmenter)
            self.print_to_log_file(describe_wait(measured, self.device.type == "cuda", by_workers))
        return output

    def on_train_end(self) -> None:
        """End as usual; nnU-Net ends the workers of its own augmenters only."""
        super().on_train_end()
        for loader in (self.dataloader_train, self.dataloader_val):
            if isinstance(loader, DeviceAugmenter):
                loader.finish()


def checked_augmentation(device: torch.device) -> Augmentation:
    """Where the environment asks for samples of a training on ``device`` to be augmented.

    Raises:
        UserError: the value is unknown, or the device cannot augment.
    """
    setting = augmentation_setting()
    if setting is Augmentation.DEVICE and device.type == "mps":  # torch has no 3D grid_sample there
        raise UserError(
            f"{AUGMENTATION_VARIABLE} is 'device', which does not work on mps; set it to workers, or unset it"
        )
    return setting


def free_bytes(device: torch.device) -> int | None:
    """Memory that a process may still take on a GPU; None on other devices."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device)  # what the process has already is for the training, too


def why_no_memory(needed: float, free: int | None) -> str | None:
    """Why a device cannot augment, in bytes that are needed for that with a training step and that are free."""
    if free is None or needed <= free:
        return None
    return (
        f"a training step and augmentation on the device need up to {needed / GB:.1f} GB, and the GPU has "
        f"{free / GB:.1f} GB"
    )


def describe_wait(measured: Measured, on_gpu: bool, by_workers: bool) -> str:
    """A line about the time that a training waits for data; it advises another setting only where that may help."""
    line = (
        f"a step takes {measured.step:.3f} s, after {measured.waiting:.3f} s of waiting for data ({measured.share:.0%} "
        f"of the time); {'the workers augment' if by_workers else 'the device augments'}"
    )
    if on_gpu and by_workers and measured.share > _MUCH_WAITING:
        line += f". {AUGMENTATION_VARIABLE}=device moves that to the GPU, where it has not been measured yet"
    return line
