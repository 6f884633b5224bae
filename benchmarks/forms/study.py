"""What a comparison of forms declares: the forms, the network they vary, the tasks, the reference of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from factorizer_nnunet.network import Factorizer, default_form
from factorizer_nnunet.training.trainer import LEARNING_RATE


@dataclass(frozen=True)
class Form:
    """One row: the question it answers, and what it changes in the default network or its recipe."""

    question: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = LEARNING_RATE
    schedule: str = "poly"  # or "constant", "cosine"; all after the same warm-up
    stock: bool = False  # nnU-Net's U-Net of the same widths and strides, with its recipe, instead


@dataclass(frozen=True, kw_only=True)
class Study:
    """Forms compared on some tasks for equal time: first all with one seed, then the finalists with ``seeds``."""

    forms: Mapping[str, Form]
    reference: str  # every form trains for the time that this one's iterations take
    always_final: Sequence[str]  # finalists whatever their screening says
    widths: Sequence[int]
    strides: Sequence[Sequence[int]]
    patches: Mapping[str, tuple[int, int, int]]  # voxels a network sees at a time, for every task (tasks.TASKS)
    seeds: Sequence[int] = (0, 1, 2)

    def build(self, name: str, channels: int, classes: int, patch_size: Sequence[int]) -> nn.Module:
        """The network of the form ``name``, deep supervision on; ``patch_size`` in voxels."""
        form = self.forms[name]
        if form.stock:
            return PlainConvUNet(
                channels,
                len(self.widths),
                self.widths,
                nn.Conv3d,
                3,
                self.strides,
                2,
                classes,
                2,
                conv_bias=True,
                norm_op=nn.InstanceNorm3d,
                norm_op_kwargs={"eps": 1e-5, "affine": True},
                nonlin=nn.LeakyReLU,
                nonlin_kwargs={"inplace": True},
                deep_supervision=True,
            )
        settings = {"features_per_stage": self.widths, **default_form(len(self.strides)), **form.changes}
        if settings.get("position", "none") != "none":
            settings["patch_size"] = list(patch_size)
        return Factorizer(channels, classes, strides=self.strides, **settings, deep_supervision=True)
