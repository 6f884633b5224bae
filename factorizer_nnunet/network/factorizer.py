"""The U-shaped Factorizer, built as nnU-Net builds a network from a plans file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from factorizer_nnunet.network.blocks import FactorizerBlock, Stage
from factorizer_nnunet.network.config import FactorizerConfig, is_integer
from factorizer_nnunet.network.layers import Conv, Downsample, Upsample, channels_first, channels_last
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.positions import build_position
from factorizer_nnunet.network.skip_merge import upsample_and_adapt


class Factorizer(nn.Module):
    """U-shaped segmentation network whose blocks mix context by NMF (Ashtari et al. 2023, arXiv 2202.12295).

    The arguments are plain JSON values and stand in the plans file under ``architecture.arch_kwargs``; see
    ``FactorizerConfig`` for their meaning. ``decoder.deep_supervision`` may be switched while running, as nnU-Net
    does.

    Args:
        input_channels: channels of the image.
        num_classes: channels of the output logits.
        features_per_stage: width of each stage, highest resolution first.
        strides: downsampling per axis on the way into each stage; the first entry is ones.
        kernel_sizes: convolution kernels per stage; 3 an axis by default.
        window_sizes: NMF windows per stage, in voxels; 8 an axis by default, or the whole axis where it is shorter.
        window_counts: instead, the number of windows along each axis of each stage of ``patch_size``.
        n_blocks_per_stage: blocks of each encoder stage; 1 by default.
        n_blocks_per_stage_decoder: blocks of each decoder stage, highest resolution first; 1 by default.

    Raises:
        ValueError: an impossible setting, when built; a patch that the strides do not divide, when run.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        features_per_stage: Sequence[int],
        strides: Sequence[Sequence[int]],
        kernel_sizes: Sequence[Sequence[int]] | None = None,
        window_sizes: Sequence[Sequence[int | None]] | None = None,
        window_counts: Sequence[Sequence[int]] | None = None,
        n_blocks_per_stage: Sequence[int] | None = None,
        n_blocks_per_stage_decoder: Sequence[int] | None = None,
        head_dim: int | None = 8,
        num_heads: int | None = None,
        shifts: Sequence[float | Sequence[float]] = (0.0, 0.5),
        num_shifts: int | None = None,
        border: str = "cut",
        rank: int = 1,
        solver: str = "hals",
        start: str = "constant",
        num_iters: int = 5,
        num_grad_steps: int | None = None,
        eps: float | None = None,
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        position: str = "none",
        patch_size: Sequence[int] | None = None,
        norm: str = "instance",
        depthwise: str = "entry",
        adapter: str = "pointwise",
        downsample: str = "patch",
        nmf_stages: Sequence[bool] | None = None,
        checkpointing: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("input_channels", input_channels), ("num_classes", num_classes)):
            if not is_integer(value) or value < 1:
                raise ValueError(f"{name}={value} is impossible; valid: an integer of at least 1")
        if not isinstance(deep_supervision, bool):
            raise ValueError(f"deep_supervision={deep_supervision!r} is impossible; valid: true or false")
        if not isinstance(strides, Sequence) or not strides:
            raise ValueError(f"strides={strides!r} is impossible; valid: a list per stage of one value per axis")
        per_stage = [[1] * (len(stride) if isinstance(stride, Sequence) else 1) for stride in strides]
        config = FactorizerConfig(
            features_per_stage=features_per_stage,
            strides=strides,
            kernel_sizes=[[3 * v for v in ones] for ones in per_stage] if kernel_sizes is None else kernel_sizes,
            window_sizes=window_sizes,
            window_counts=window_counts,
            n_blocks_per_stage=[1] * len(strides) if n_blocks_per_stage is None else n_blocks_per_stage,
            n_blocks_per_stage_decoder=[1] * (len(strides) - 1)
            if n_blocks_per_stage_decoder is None
            else n_blocks_per_stage_decoder,
            head_dim=head_dim,
            num_heads=num_heads,
            shifts=shifts,
            num_shifts=num_shifts,
            border=border,
            rank=rank,
            solver=solver,
            start=start,
            num_iters=num_iters,
            num_grad_steps=num_grad_steps,
            eps=eps,
            mlp_ratio=mlp_ratio,
            dropout=dropout,
            drop_path=drop_path,
            position=position,
            patch_size=patch_size,
            norm=norm,
            depthwise=depthwise,
            adapter=adapter,
            downsample=downsample,
            nmf_stages=nmf_stages,
            checkpointing=checkpointing,
        )
        self.config = config
        self.encoder = Encoder(input_channels, config)
        self.decoder = Decoder(num_classes, config, deep_supervision)

    def use(self, num_iters: int | None = None, num_shifts: int | None = None) -> None:
        """From now on compute so many iterations of the NMF and so many of the shifts of its windows.

        Weights and windows stay as they are. None leaves a setting as it is; ``num_shifts`` as in ``FactorizerConfig``.

        Raises:
            ValueError: there are no such iterations or shifts; nothing has changed.
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
            raise ValueError(f"patch of {list(size)} voxels; the strides need multiples of {list(total)}")
        stored = self.config.stored_patch_size
        if stored is not None and size != stored:
            raise ValueError(
                f"patch of {list(size)} voxels; position={self.config.position} and start={self.config.start} have "
                f"values for patches of {list(stored)}"
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

    All heads are built whether or not deep supervision is on, so that weights load either way. ``num_outputs`` limits
    what deep supervision gives to the highest resolutions, for networks of the authors; nnU-Net expects all.
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
        # nnU-Net leaves weights named seg_layers out when it loads pretrained weights for other classes.
        self.seg_layers = nn.ModuleList(nn.Linear(widths[s], num_classes) for s in (stages or (0,)))

    def forward(self, features: list[Tensor]) -> Tensor | list[Tensor]:
        """features: as the encoder gives them; returns logits (B, classes, *size), see ``Factorizer.forward``."""
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
        if isinstance(adapter, nn.Linear):
            return upsample_and_adapt(skip, low, upsample, adapter)
        return adapter(torch.cat((skip, upsample(low)), -1))


def _downsample(config: FactorizerConfig, stage: int) -> nn.Module:
    """What leads from the stage above into this one."""
    stride = config.strides[stage]
    kernel = stride
    if config.downsample == "overlap":  # but never so small that voxels between the patches go unseen
        kernel = [max(k, s) for k, s in zip(config.kernel_sizes[stage], stride, strict=True)]
    return Downsample(config.features_per_stage[stage - 1], config.features_per_stage[stage], kernel, stride)


def _adapter(config: FactorizerConfig, stage: int) -> nn.Module:
    """What brings upsampled features and skip, concatenated, back to the width of the stage."""
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
                mlp_ratio=config.mlp_ratio,
                depthwise=config.depthwise,
                kernel_size=config.kernel_sizes[stage],
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
