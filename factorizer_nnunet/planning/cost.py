"""Multiply-adds of planned networks, counted on tensors without data, and nnU-Net's plan for comparison."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.dataset_json import CASES_KEY
from factorizer_nnunet.nnunet.trusted_classes import check_architecture

STOCK_PLANS = "nnUNetPlans"


def multiply_adds(
    architecture: Mapping[str, Any], patch_size: Sequence[int], input_channels: int, num_classes: int
) -> int:
    """Multiply-adds of a forward pass of one patch, in convolutions and matrix products.

    Args:
        architecture: the ``architecture`` entry of a plans configuration.
        patch_size: in voxels.

    Raises:
        TypeError, ValueError: no network can be built from the entry.
    """
    # Autocast makes our layers compute as on a GPU, which does not process the volume in parts.
    with FakeTensorMode(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            input_channels,
            num_classes,
            allow_init=False,
            deep_supervision=False,
        ).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, input_channels, *patch_size))
    return counter.get_total_flops() // 2


def stock_configuration(
    configuration: Mapping[str, Any], name: str, plans_file: Path, slices: int
) -> tuple[dict[str, Any], str]:
    """nnU-Net's default plan of one configuration of the same data, and its origin; nothing is written.

    Args:
        configuration: our configuration, which gives spacing and image size.
        name: name of the configuration.
        plans_file: our plans file, in the data set's folder in ``nnUNet_preprocessed``.
        slices: number of slices of a median case, for a 2D configuration.

    Raises:
        UserError: nnU-Net's plans of the data cannot be read, or name code of other packages than those of networks.
    """
    file = plans_file.with_name(f"{STOCK_PLANS}.json")
    if file.is_file():
        manager = PlansManager(load_json_object(file, "Plan again with nnUNetv2_plan_experiment"))
        if name in manager.available_configurations:
            settings = manager.get_configuration(name).configuration
            check_architecture(settings["architecture"], f"{file}, configuration {name}")
            return settings, file.name
    with contextlib.redirect_stdout(io.StringIO()):
        planner = ExperimentPlanner(plans_file.parent.name)
        shape = [float(v) for v in configuration["median_image_size_in_voxels"]]
        voxels = math.prod(shape) * (slices if len(shape) == 2 else 1) * planner.dataset_json[CASES_KEY]
        plan = planner.get_plans_for_configuration(configuration["spacing"], shape, "", voxels, {})
    return plan, "planned only for this comparison"
