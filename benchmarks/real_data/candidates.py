"""What may make the network better: each candidate differs from the plain form in one thing, some in two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.nnunet_commands import OURS
from benchmarks.real_data.arms import ARMS, UNET_PLANS, Arm, Configuration
from factorizer_nnunet.planning.architecture import architecture_entry

PLAIN = ARMS["plain"]
Settings = dict[str, Any]  # of the network
_GATE = {"nmf_output": "gate"}


def _form(name: str, title: str, cost: float, change: Callable[[Settings], Settings]) -> Arm:
    """A candidate with other settings of the network."""

    def architecture(configuration: Configuration) -> dict[str, Any]:
        settings = PLAIN.architecture(configuration)["arch_kwargs"]
        return architecture_entry({**settings, **change(settings)})

    return Arm(title, OURS, f"{UNET_PLANS}_{name}", architecture, cost)


def _recipe(
    name: str, title: str, *, trainer: str = OURS, suffix: str = "", batches: float = 1.0, cost: float = PLAIN.cost
) -> Arm:
    """A candidate with the plain form's plans and another trainer: its recipe, or what it makes of the network."""
    plans = PLAIN.plans if batches == 1 else f"{PLAIN.plans}_{name}"
    return Arm(title, trainer, plans, PLAIN.architecture, cost, suffix, batches)


def _nmf_from_second(settings: Settings) -> Settings:
    return {"nmf_stages": [stage > 0 for stage in range(len(settings["strides"]))]}


def _kernels(settings: Settings, size: int, first_stage: bool = False) -> Settings:
    """Larger kernels along the axes that have 3, below the first stage or in all."""
    larger = [[size if old == 3 else old for old in kernel] for kernel in settings["kernel_sizes"]]
    return {"kernel_sizes": larger if first_stage else [settings["kernel_sizes"][0], *larger[1:]]}


def _kernels_of_5(settings: Settings) -> Settings:
    return _kernels(settings, 5)


def _two_depthwise(settings: Settings) -> Settings:
    return {"n_conv_per_stage": [1, *[2] * (len(settings["strides"]) - 1)]}


def _two_blocks(settings: Settings) -> Settings:
    return {"n_blocks_per_stage": [1, *[2] * (len(settings["strides"]) - 1)]}


def _two_blocks_everywhere(settings: Settings) -> Settings:
    stages = len(settings["strides"])
    return {"n_blocks_per_stage": [2] * stages, "n_blocks_per_stage_decoder": [2] * (stages - 1)}


def _wider(settings: Settings) -> Settings:
    return {"features_per_stage": [width * 3 // 2 for width in settings["features_per_stage"]]}


def _wider_below(settings: Settings) -> Settings:
    first, *lower = settings["features_per_stage"]
    return {"features_per_stage": [first, *(width * 3 // 2 for width in lower)]}


def _trainer(name: str) -> str:
    return f"nnUNetTrainerBenchmark{name}"  # in benchmarks/ext_trainer/search_trainers.py


CANDIDATES: dict[str, Arm] = {
    "nmf_from_second": _form("nmf_from_second", "NMF from the second stage on", 0.4, _nmf_from_second),
    "rank_4": _form("rank_4", "rank 4", 0.4, lambda _: {"rank": 4}),
    "gated": _form("gated", "gating with the NMF's reconstruction", 0.4, lambda _: _GATE),
    "gated_everywhere": _form(
        "gated_everywhere",
        "gating, NMF everywhere",
        0.6,
        lambda settings: {"nmf_stages": [True] * len(settings["strides"]), **_GATE},
    ),
    "kernels_of_5": _form("kernels_of_5", "kernels of 5 below the first stage", 0.45, _kernels_of_5),
    "kernels_of_7": _form("kernels_of_7", "kernels of 7 below the first stage", 0.6, partial(_kernels, size=7)),
    "kernels_of_5_everywhere": _form(
        "kernels_of_5_everywhere", "kernels of 5", 0.6, partial(_kernels, size=5, first_stage=True)
    ),
    "kernels_of_5_gated": _form(
        "kernels_of_5_gated",
        "kernels of 5 below the first stage, gating",
        0.45,
        lambda settings: {**_kernels_of_5(settings), **_GATE},
    ),
    "kernels_of_5_muon": replace(
        _form("kernels_of_5", "kernels of 5 below the first stage, Muon", 0.45, _kernels_of_5), trainer=_trainer("Muon")
    ),
    "kernels_of_5_nmf": _form(
        "kernels_of_5_nmf",
        "kernels of 5 below the first stage, NMF everywhere",
        0.7,
        lambda settings: {**_kernels_of_5(settings), "nmf_stages": [True] * len(settings["strides"])},
    ),
    "two_depthwise": _form(
        "two_depthwise", "two 3×3×3 depthwise convolutions in a row below the first stage", 0.4, _two_depthwise
    ),
    "two_blocks": _form("two_blocks", "two blocks below the first stage of the encoder", 0.4, _two_blocks),
    "two_blocks_everywhere": _form("two_blocks_everywhere", "two blocks everywhere", 0.6, _two_blocks_everywhere),
    "wider": _form("wider", "wider by half", 0.5, _wider),
    "wider_below": _form("wider_below", "wider by half below the first stage", 0.4, _wider_below),
    "mlp_4": _form("mlp_4", "MLP ratio 4", 0.45, lambda _: {"mlp_ratio": 4.0}),
    "conv_stem": _recipe("conv_stem", "stem of two convolutions", trainer=_trainer("ConvStem"), cost=0.45),
    "conv_adapter": _form("conv_adapter", "3×3×3 convolution in the adapters", 0.6, lambda _: {"adapter": "conv"}),
    "overlap": _form("overlap", "overlapping downsampling", 0.4, lambda _: {"downsample": "overlap"}),
    "layer_norm": _form("layer_norm", "LayerNorm", 0.33, lambda _: {"norm": "layer"}),
    "lr_1e2": _recipe("lr_1e2", "learning rate 1e-2", suffix="_lr1e-2"),
    "lr_6e3": _recipe("lr_6e3", "learning rate 6e-3", suffix="_lr6e-3"),
    "short_warmup": _recipe("short_warmup", "warm-up of 5 iterations", suffix="_warmup5"),
    "cosine": _recipe("cosine", "cosine decay", trainer=_trainer("Cosine")),
    "averaged": _recipe("averaged", "moving average of the weights", trainer=_trainer("Averaged")),
    "muon": _recipe("muon", "Muon for matrices", trainer=_trainer("Muon")),
    "fast_moments": _recipe("fast_moments", "AdamW's second moment over 20 steps", trainer=_trainer("FastMoments")),
    "one_output": _recipe("one_output", "no deep supervision", trainer=_trainer("OneOutput")),
    "half_batch": _recipe("half_batch", "half the batch, twice the iterations", batches=0.5, cost=PLAIN.cost / 2),
    "double_batch": _recipe("double_batch", "twice the batch, half the iterations", batches=2, cost=PLAIN.cost * 2),
}
ALL_ARMS = {**ARMS, **CANDIDATES}
