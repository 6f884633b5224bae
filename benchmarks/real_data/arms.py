"""What is compared: networks of the same plan, each with a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.nnunet_commands import OURS, STOCK
from factorizer_nnunet.network.variants import PLANNED_FORMS, variant_arguments
from factorizer_nnunet.planning.architecture import architecture_entry, factorizer_architecture

UNET_PLANS = "nnUNetPlans"  # of nnU-Net's planner; the other networks' plans differ in ``architecture`` alone
# Blocks of nnU-Net's ResEnc M, see nnunetv2's residual_encoder_unet_planners.py.
_RESENC_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6, 6)

Configuration = Mapping[str, Any]  # of a plans file


def _unet(configuration: Configuration) -> dict[str, Any]:
    return dict(configuration["architecture"])


def _resenc(configuration: Configuration) -> dict[str, Any]:
    entry = _unet(configuration)
    arguments = dict(entry["arch_kwargs"])
    stages = arguments["n_stages"]
    del arguments["n_conv_per_stage"]
    arguments |= {"n_blocks_per_stage": _RESENC_BLOCKS[:stages], "n_conv_per_stage_decoder": [1] * (stages - 1)}
    name = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    return {**entry, "network_class_name": name, "arch_kwargs": arguments}


def _planned(configuration: Configuration, form: str) -> dict[str, Any]:
    arguments = configuration["architecture"]["arch_kwargs"]
    return factorizer_architecture(arguments, configuration["spacing"], form=PLANNED_FORMS[form])


def _nmf(configuration: Configuration, form: str, everywhere: bool) -> dict[str, Any]:
    """A form with the NMF in every stage, or in none."""
    arguments = _planned(configuration, form)["arch_kwargs"]
    return architecture_entry({**arguments, "nmf_stages": [everywhere] * len(arguments["strides"])})


def _swin(configuration: Configuration) -> dict[str, Any]:
    return architecture_entry(variant_arguments("swin", [int(size) for size in configuration["patch_size"]]))


@dataclass(frozen=True)
class Arm:
    """A network with a recipe.

    Attributes:
        title: in tables.
        trainer: whose recipe is used, without length and seed.
        plans: name of the plans.
        architecture: the ``architecture`` entry of a configuration of these plans, from that of nnU-Net's planner.
        cost: CPU time of an iteration relative to nnU-Net's U-Net, guessed until it is measured.
        suffix: of the trainer's name after its length, such as ``_lr1e-2``.
        batches: patches of a batch relative to the plans; the iterations of a training are divided by it.
    """

    title: str
    trainer: str
    plans: str
    architecture: Callable[[Configuration], dict[str, Any]]
    cost: float
    suffix: str = ""
    batches: float = 1.0

    def configuration(self, configuration: Configuration) -> dict[str, Any]:
        """A configuration of the plans of nnU-Net's planner, with this arm's network and batch."""
        batch = max(1, round(configuration["batch_size"] * self.batches))
        return {**configuration, "architecture": self.architecture(configuration), "batch_size": batch}


def _factorizer(name: str, title: str, architecture: Callable[[Configuration], dict[str, Any]], cost: float) -> Arm:
    return Arm(title, OURS, f"{UNET_PLANS}_{name}", architecture, cost)


# In the order in which they are trained.
ARMS: dict[str, Arm] = {
    "default": _factorizer("default", "Factorizer, default", partial(_planned, form="default"), 0.4),
    "unet": Arm("nnU-Net's U-Net", STOCK, UNET_PLANS, _unet, 1.0),
    "unet_ours": Arm("nnU-Net's U-Net, our recipe", OURS, UNET_PLANS, _unet, 1.0),
    "everywhere": _factorizer("everywhere", "Factorizer, NMF everywhere", partial(_planned, form="everywhere"), 0.6),
    "no_nmf": _factorizer("no_nmf", "Factorizer, no NMF", partial(_nmf, form="default", everywhere=False), 0.38),
    "resenc": Arm("ResEnc M", STOCK, f"{UNET_PLANS}_resenc", _resenc, 0.9),
    "swin": _factorizer("swin", "Factorizer, as published (swin)", _swin, 0.6),
    "plain": _factorizer("plain", "Factorizer, plain", partial(_planned, form="plain"), 0.33),
    "plain_everywhere": _factorizer(
        "plain_everywhere", "Factorizer, plain, NMF everywhere", partial(_nmf, form="plain", everywhere=True), 0.5
    ),
    "plain_no_nmf": _factorizer(
        "plain_no_nmf", "Factorizer, plain, no NMF", partial(_nmf, form="plain", everywhere=False), 0.32
    ),
}
BASELINE = "unet"
RECIPE = "unet_ours"
MAIN = ("default", BASELINE, RECIPE)  # compared on more folds than the other arms
