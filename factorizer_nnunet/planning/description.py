"""Plans as a table for people: what each stage sees and costs, and how the plan compares with nnU-Net's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.network.config import FactorizerConfig
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.environment import AUGMENTATION_VARIABLE
from factorizer_nnunet.nnunet.trusted_classes import check_named_code
from factorizer_nnunet.planning.architecture import NETWORK_CLASS
from factorizer_nnunet.planning.augmentation_memory import augmentation_bytes
from factorizer_nnunet.planning.cost import multiply_adds, stock_configuration
from factorizer_nnunet.planning.memory import GB, MemoryEstimate, estimate, is_modelled

_HEADINGS = ("stage", "voxels", "voxel mm", "width", "blocks", "NMF", "window", "window mm", "shifts", "keeps MB")


def describe_plans(plans_file: Path, configurations: Sequence[str]) -> str:
    """Tables of the ``configurations`` that the plans have.

    Raises:
        UserError: the plans have none of them, or settings that build no Factorizer; the message names the key.
    """
    plans = load_json_object(plans_file, "Remove it and plan again")
    manager = PlansManager(dict(plans))
    chosen = [name for name in configurations if name in manager.available_configurations]
    if not chosen:
        raise UserError(
            f"{plans_file} has none of {', '.join(configurations)}: choose from "
            f"{', '.join(manager.available_configurations)}"
        )
    for name in chosen:
        check_named_code(plans, name, str(plans_file))
    dataset_json = load_json_object(plans_file.with_name("dataset.json"), "Plan again")
    labels = manager.get_label_manager(dataset_json)
    heads = labels.num_segmentation_heads
    parts = []
    for name in chosen:
        settings = manager.get_configuration(name)
        channels = determine_num_input_channels(manager, settings, dataset_json)
        slices = plans["original_median_shape_after_transp"][0]
        stock = stock_configuration(settings.configuration, name, plans_file, slices)
        previous = channels - len(DatasetJson(dataset_json).channel_names)
        targets, patch = heads + 1 if labels.has_regions else 1, [int(v) for v in settings.patch_size]
        augmentation = augmentation_bytes(patch, settings.batch_size, channels - previous, previous, targets)
        parts.append(_describe(settings.configuration, plans_file, name, channels, heads, *stock, augmentation))
    return "\n\n".join(parts)


def _describe(
    configuration: Mapping[str, Any],
    plans_file: Path,
    name: str,
    channels: int,
    heads: int,
    stock: Mapping[str, Any],
    source: str,
    augmentation: int,
) -> str:
    where = f"{plans_file}, configuration {name}"
    architecture = configuration["architecture"]
    if architecture.get("network_class_name") != NETWORK_CLASS:
        raise UserError(f"{where}: architecture.network_class_name is not {NETWORK_CLASS}: cannot show it")
    patch, spacing = [int(v) for v in configuration["patch_size"]], configuration["spacing"]
    try:
        config = FactorizerConfig.from_settings(architecture["arch_kwargs"])
        macs = multiply_adds(architecture, patch, channels, heads)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: architecture.arch_kwargs builds no network: {error}; correct it") from error
    modelled = is_modelled(config)
    memory = estimate(config, patch, configuration["batch_size"], channels, heads) if modelled else None
    stock_patch = [int(v) for v in stock["patch_size"]]
    stock_macs = multiply_adds(stock["architecture"], stock_patch, channels, heads)
    voxel, stock_voxel = macs / math.prod(patch), stock_macs / math.prod(stock_patch)
    lines = [
        f"{plans_file.name}, configuration {name}: {configuration['batch_size']} patches of {_by(patch)} voxels of "
        f"{_by(spacing)} mm, {channels} channels, {heads} outputs",
        *_table(config, patch, spacing, memory),
        *_memory_lines(memory),
        f"with {AUGMENTATION_VARIABLE}=device, augmentation on the GPU needs up to {augmentation / GB:.2f} GB more",
        f"forward pass, multiply-adds: {macs / 1e9:.1f} G per patch, {voxel / 1e3:.0f} k per voxel; "
        "a training step takes about three times as many",
        f"nnU-Net's plan ({source}): {stock['batch_size']} patches of {_by(stock_patch)}, {stock_macs / 1e9:.1f} G "
        f"per patch, {stock_voxel / 1e3:.0f} k per voxel; ours costs {macs / stock_macs:.2f} of that per patch, "
        f"{voxel / stock_voxel:.2f} per voxel",
    ]
    return "\n".join(lines)


def _table(
    config: FactorizerConfig, patch: Sequence[int], spacing: Sequence[float], memory: MemoryEstimate | None
) -> list[str]:
    """One row per stage, with aligned columns."""
    rows = [_HEADINGS]
    voxel = [float(mm) for mm in spacing]
    for stage, size in enumerate(config.stage_sizes(patch)):
        voxel = [mm * step for mm, step in zip(voxel, config.strides[stage], strict=True)]
        window = [
            length if w is None else min(w, length) for w, length in zip(config.stage_window(stage), size, strict=True)
        ]
        decoder = config.n_blocks_per_stage_decoder
        blocks = f"{config.n_blocks_per_stage[stage]}" + (f" + {decoder[stage]}" if stage < len(decoder) else "")
        has_nmf = config.has_nmf(stage)
        shown = (_by(window), _by(w * mm for w, mm in zip(window, voxel, strict=True)), _shifts(config))
        rows.append(
            (
                str(stage),
                _by(size),
                _by(voxel),
                str(config.features_per_stage[stage]),
                blocks,
                "yes" if has_nmf else "no",
                *(shown if has_nmf else ("-", "-", "-")),
                "?" if memory is None else f"{memory.stages[stage] / 1e6:.0f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _memory_lines(memory: MemoryEstimate | None) -> list[str]:
    if memory is None:
        return ["memory: not modelled for ranks above 1 and starts other than constant"]
    return [
        f"memory: {memory.total / GB:.2f} GB required: {memory.step / GB:.2f} GB for a training step (parameters, "
        f"gradients and AdamW {memory.parameters / GB:.2f}, kept for the loss {memory.loss / GB:.2f}) and a reserve"
    ]


def _shifts(config: FactorizerConfig) -> str:
    return " ".join(_by(s) if isinstance(s, tuple) else f"{s:g}" for s in config.shifts)


def _by(values: Iterable[float]) -> str:
    return " × ".join(f"{float(value):.4g}" for value in values)
