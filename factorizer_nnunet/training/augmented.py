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
from factorizer_nnunet.training.augmentation.augmenter import (
    DeviceAugmenter,
    augment_on_device,
    device_augments,
    end_workers,
)
from factorizer_nnunet.training.ranks import largest_of_all_ranks
from factorizer_nnunet.training.timed import TimedTrainer


class AugmentedTrainer(TimedTrainer):
    """Augments where ``nnUNet_factorizer_augmentation`` says, or by the workers if the device's memory is too small.

    Raises:
        UserError: the variable has a wrong value, or asks for a device that cannot augment.
    """

    dataloader_train: Any  # a DeviceAugmenter, or nnU-Net's augmenter

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's loaders; on the device, if it has the memory, those that take their place and give such batches."""
        end_forked_workers_with_parent(self)
        loaders = super().get_dataloaders()
        if checked_augmentation(self.device) is not Augmentation.DEVICE:
            return loaders
        reason = self.obstacle_of_any(self.why_no_memory())
        if reason is not None:
            self.print_to_log_file(f"{reason}: the workers augment")
            return loaders
        training, validation = (augment_on_device(one, self.device, self.print_to_log_file) for one in loaders)
        return training, validation

    def why_no_memory(self) -> str | None:
        """Why this process's device has too little memory to augment; None if it has enough."""
        return why_no_memory(self._bytes_needed(), free_bytes(self.device))

    def obstacle_of_any(self, reason: str | None) -> str | None:
        """The reason why this process or another one cannot augment on its device; None if all can."""
        any_has = largest_of_all_ranks(reason is not None, self.device)
        return reason or "another GPU has too little memory" if any_has else None

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

    @property
    def can_free_memory(self) -> bool:
        """Whether the device augments, which needs memory."""
        return any(map(device_augments, (self.dataloader_train, self.dataloader_val)))

    def free_memory(self) -> None:
        """Let the workers augment."""
        for loader in (self.dataloader_train, self.dataloader_val):
            if isinstance(loader, DeviceAugmenter):
                loader.return_to_workers()
        self.print_to_log_file(
            f"{self.device} has too little memory for a step next to augmentation: the step is repeated, and the "
            "workers augment from now on"
        )

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
    if setting is Augmentation.DEVICE and not can_augment(device):
        raise UserError(
            f"{AUGMENTATION_VARIABLE} is 'device', which does not work on {device.type}; set it to workers, or unset it"
        )
    return setting


def can_augment(device: torch.device) -> bool:
    """Whether a device has all that augmentation needs."""
    return device.type != "mps"  # torch has no 3D grid_sample there


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
