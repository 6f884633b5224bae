"""nnU-Net's loss with an ignore label, without waiting for the device.

nnU-Net leaves the cross entropy out where no voxel has a label, since a mean of nothing is not a number. It asks the
device for the number of labelled voxels, once for each output of the network. Here the device decides itself. Losses
for regions do not ask.
"""

from __future__ import annotations

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor, nn


class LabelledLoss(nn.Module):
    """The value and gradients of a ``DC_and_CE_loss`` that has an ignore label."""

    def __init__(self, stock: DC_and_CE_loss) -> None:
        super().__init__()
        self.stock = stock

    def forward(self, net_output: Tensor, target: Tensor) -> Tensor:
        """The loss; net_output: (B, classes, *spatial), target: (B, 1, *spatial)."""
        stock = self.stock
        labelled = target != stock.ignore_label
        dice = stock.dc(net_output, torch.where(labelled, target, 0), loss_mask=labelled)
        # Without labelled voxels it is not a number, but its gradients are 0.
        cross_entropy = torch.where(labelled.any(), stock.ce(net_output, target[:, 0]), 0.0)
        return stock.weight_ce * cross_entropy + stock.weight_dice * dice


def without_waiting(loss: nn.Module) -> nn.Module:
    """The loss of a trainer, with :class:`LabelledLoss` where nnU-Net's would wait; it may be changed in place."""
    if isinstance(loss, DeepSupervisionWrapper):
        loss.loss = without_waiting(loss.loss)
        return loss
    waits = type(loss) is DC_and_CE_loss and loss.ignore_label is not None
    return LabelledLoss(loss) if waits else loss
