"""The U-shaped Factorizer, built as nnU-Net builds a network from a plans file."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from factorizer_nnunet.network.blocks import FactorizerBlock, Stage
from factorizer_nnunet.network.config import FactorizerConfig
from factorizer_nnunet.network.config_values import is_count, require
from factorizer_nnunet.network.layers import Conv, Downsample, Upsample
from factorizer_nnunet.network.layout import channels_first, channels_last
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.positions import build_position
from factorizer_nnunet.network.skip_merge import upsample_and_adapt


class Factorizer(nn.Module):
    """U-shaped segmentation network whose blocks mix context by NMF (Ashtari et al. 2023, arXiv 2202.12295).

    nnU-Net builds it with ``architecture.arch_kwargs`` of a plans file as keyword arguments; in Python, ``from_config``
    takes a ``FactorizerConfig``. ``decoder.deep_supervision`` can be switched at any time, as nnU-Net does.

    Args:
        input_channels: channels of the image.
        num_classes: channels of the output logits.
        deep_supervision: whether ``forward`` returns logits at every resolution but the lowest.
        settings: the settings of ``FactorizerConfig``, as plain JSON values; see ``FactorizerConfig.from_settings``.

    Raises:
        ValueError: an unknown, missing or invalid setting, when built; a patch of the wrong size, when run.
    """

    def __init__(
        self, input_channels: int, num_classes: int, *, deep_supervision: bool = False, **settings: Any
    ) -> None:
        super().__init__()
        for name, value in (("input_channels", input_channels), ("num_classes", num_classes)):
            require(is_count(value), name, value, "an integer of at least 1")
        require(isinstance(deep_supervision, bool), "deep_supervision", deep_supervision, "true or false")
        self.config = FactorizerConfig.from_settings(settings)
        self.encoder = Encoder(input_channels, self.config)
        self.decoder = Decoder(num_classes, self.config, deep_supervision)

    @classmethod
    def from_config(
        cls, config: FactorizerConfig, input_channels: int, num_classes: int, deep_supervision: bool = False
    ) -> Factorizer:
        """Build the network of a configuration."""
        return cls(input_channels, num_classes, deep_supervision=deep_supervision, **vars(config))

    def use(self, num_iters: int | None = None, num_shifts: int | None = None) -> None:
        """Set how many NMF iterations and how many of the window shifts to compute; None keeps the present number.

        Weights and windows do not change. Both numbers are those of ``FactorizerConfig``.

        Raises:
            ValueError: a number is invalid; nothing has changed.
        """
        self.config = self.config.used_with(num_iters, num_shifts)
        for module in self.modules():
            if isinstance(module, NMFMixer):
                module.nmf, module.num_shifts = self.config.nmf, self.config.num_shifts

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """x: (B, input_channels, *patch); returns logits (B, num_classes, *patch).

        With deep supervision a list, highest resolution first, one entry per decoder stage.
        """
        size, total = tuple(x.shape[2:]), self.config.total_stride
        if len(size) != len(total) or any(s % t for s, t in zip(size, total, strict=True)):
            raise ValueError(f"patch of {list(size)} voxels: the strides require multiples of {list(total)}")
        stored = self.config.stored_patch_size
        if stored is not None and size != stored:
            raise ValueError(
                f"patch of {list(size)} voxels: position={self.config.position} and start={self.config.start} "
                f"store values for patches of {list(stored)} voxels"
            )
        return self.decoder(self.encoder(channels_last(x)))


class Encoder(nn.Module):
    """Image to one feature map per stage, highest resolution first."""

    def __init__(self, input_channels: int, config: FactorizerConfig) -> None:
        super().__init__()
        widths = config.features_per_stage
        self.stem = Conv(input_channels, widths[0], config.kernel_sizes[0])
        self.downsamples = nn.ModuleList(_downsample(config, stage) for stage in range(1, config.num_stages))
        self.position = build_position(config.position, widths[-1], config.stage_size(config.num_stages - 1))
        self.stages = nn.ModuleList(
            _stage(config, stage, config.n_blocks_per_stage[stage]) for stage in range(config.num_stages)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """x: (B, *patch, channels); returns (B, *size of the stage, width) for each stage."""
        x = self.stem(x)
        features = []
        for index, stage in enumerate(self.stages):
            if index > 0:
                x = self.downsamples[index - 1](x)
            if index == len(self.stages) - 1:
                x = self.position(x)
            x = stage(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """Feature maps back to logits at every resolution but the lowest.

    All heads are built with and without deep supervision, so that weights load either way. ``num_outputs`` limits deep
    supervision to the highest resolutions, for the authors' networks; nnU-Net expects all.
    """

    def __init__(self, num_classes: int, config: FactorizerConfig, deep_supervision: bool) -> None:
        super().__init__()
        widths = config.features_per_stage
        stages = range(config.num_stages - 1)
        self.deep_supervision = deep_supervision
        self.num_outputs = max(1, len(stages))
        self.upsamples = nn.ModuleList(Upsample(widths[s + 1], widths[s], config.strides[s + 1]) for s in stages)
        self.adapters = nn.ModuleList(_adapter(config, s) for s in stages)
        self.stages = nn.ModuleList(_stage(config, s, config.n_blocks_per_stage_decoder[s]) for s in stages)
        # A network of one stage has no decoder stage; its head reads the only stage.
        # nnU-Net skips weights named seg_layers when it loads pretrained weights.
        self.seg_layers = nn.ModuleList(nn.Linear(widths[s], num_classes) for s in (stages or (0,)))

    def forward(self, features: list[Tensor]) -> Tensor | list[Tensor]:
        """features: the encoder's output; returns logits (B, num_classes, *patch), see ``Factorizer.forward``."""
        x = features[-1]
        outputs = [x] if len(features) == 1 else []
        for s in reversed(range(len(self.stages))):
            x = self._merge(s, features[s], x)
            x = self.stages[s](x)
            outputs.insert(0, x)
        if not self.deep_supervision:
            return channels_first(self.seg_layers[0](outputs[0]))
        heads = zip(self.seg_layers, outputs, strict=True)
        return [channels_first(head(output)) for head, output in itertools.islice(heads, self.num_outputs)]

    def _merge(self, stage: int, skip: Tensor, low: Tensor) -> Tensor:
        upsample, adapter = self.upsamples[stage], self.adapters[stage]
        if isinstance(adapter, nn.Linear) and isinstance(upsample, Upsample):
            return upsample_and_adapt(skip, low, upsample, adapter)
        return adapter(torch.cat((skip, upsample(low)), -1))


def _downsample(config: FactorizerConfig, stage: int) -> nn.Module:
    """The convolution into ``stage`` from the stage above."""
    stride = kernel = config.strides[stage]
    if config.downsample == "overlap":  # never so small that voxels between the patches are skipped
        kernel = tuple(max(k, s) for k, s in zip(config.kernel_sizes[stage], stride, strict=True))
    return Downsample(config.features_per_stage[stage - 1], config.features_per_stage[stage], kernel, stride)


def _adapter(config: FactorizerConfig, stage: int) -> nn.Module:
    """The layer that maps the concatenated skip and upsampled features to the width of the stage."""
    width = config.features_per_stage[stage]
    if config.adapter == "pointwise":
        return nn.Linear(2 * width, width, bias=False)
    return Conv(2 * width, width, config.kernel_sizes[stage])


def _stage(config: FactorizerConfig, stage: int, num_blocks: int) -> Stage:
    width = config.features_per_stage[stage]
    # Stochastic depth rises from 0 at the highest resolution to its full value at the lowest.
    drop_path = config.drop_path * stage / max(1, config.num_stages - 1)
    return Stage(
        *(
            FactorizerBlock(
                width,
                norm=config.norm,
                mixer=_mixer(config, stage) if config.has_nmf(stage) else None,
                gates=config.nmf_output == "gate",
                mlp_ratio=config.mlp_ratio,
                depthwise=config.depthwise,
                kernel_size=config.kernel_sizes[stage],
                num_convs=config.num_convs(stage),
                dropout=config.dropout,
                drop_path=drop_path,
                checkpointing=config.checkpointing,
            )
            for _ in range(num_blocks)
        )
    )


def _mixer(config: FactorizerConfig, stage: int) -> NMFMixer:
    return NMFMixer(
        config.features_per_stage[stage],
        head_dim=config.stage_head_dim(stage),
        window_size=config.stage_window(stage),
        shifts=config.shifts,
        border=config.border,
        nmf=config.nmf,
        num_shifts=config.num_shifts,
        stage_size=config.stage_size(stage),
    )
