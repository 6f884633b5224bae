"""nnU-Net's planner with the Factorizer as its network.

Spacing, patch size, batch size and strides stay nnU-Net's own choice; only ``architecture`` in the plans differs, so
the stock commands build the network from the plans file alone.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from factorizer_nnunet.files import load_json_object, write_whole
from factorizer_nnunet.names import PLANS
from factorizer_nnunet.network import preset_arguments
from factorizer_nnunet.planning.architecture import architecture_entry, factorizer_architecture

DEFAULT_NETWORK = "default"


class nnUNetPlannerFactorizer(ExperimentPlanner):
    """``ExperimentPlanner`` whose plans name the Factorizer; arguments as there, ``gpu_memory_target_in_gb`` in GB.

    Hand the class to ``nnunetv2.experiment_planning.plan_and_preprocess_api.plan_experiment_dataset``: nnU-Net looks
    planners up by name only within itself. Subclasses made by ``planner_for`` plan other forms of the network.
    """

    network = DEFAULT_NETWORK  # a key of network.PRESETS

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 8,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str = PLANS,
        overwrite_target_spacing: list[float] | tuple[float, ...] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )

    def get_plans_for_configuration(
        self,
        spacing: list[float],
        median_shape: list[int],
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict,
    ) -> dict:
        """nnU-Net's plan of one configuration, with the Factorizer as its ``architecture``.

        Args:
            spacing: voxel size in mm, two or three axes.
            median_shape: of the resampled cases, in voxels.
            data_identifier: folder name of the preprocessed data.
            approximate_n_voxels_dataset: over all training cases.
        """
        plan = super().get_plans_for_configuration(
            spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache
        )
        # The cache holds memory estimates of the U-Net by patch and strides; they stay right, as the swap comes after.
        if self.network == DEFAULT_NETWORK:
            plan["architecture"] = factorizer_architecture(plan["architecture"]["arch_kwargs"], spacing)
        else:  # published forms have widths, strides and windows of their own
            plan["architecture"] = architecture_entry(
                preset_arguments(self.network, [int(v) for v in plan["patch_size"]])
            )
        return plan

    def save_plans(self, plans: dict) -> None:
        """Write the plans, keeping configurations that only the old file has, as nnU-Net does; whole or not at all.

        nnU-Net writes in place, so that an interruption leaves half a file on which every later command fails.
        """
        recursive_fix_for_json_export(plans)
        plans_file = Path(nnUNet_preprocessed, self.dataset_name, f"{self.plans_identifier}.json")
        if plans_file.is_file():
            old = load_json_object(plans_file, "Remove it and plan again")
            planned = plans["configurations"]
            custom = {name: values for name, values in old["configurations"].items() if name not in planned}
            plans["configurations"].update(custom)
            if old != json.loads(json.dumps(plans)):
                kept = plans_file.with_suffix(".previous.json")
                write_whole(kept, json.dumps(old, indent=4))
                print(f"NOTE: the plans before were different, perhaps edited; they are kept in {kept}")
        plans_file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(plans_file, json.dumps(plans, indent=4))
        print(f"Plans were saved to {plans_file}")


@functools.cache
def planner_for(network: str) -> type[nnUNetPlannerFactorizer]:
    """The planner whose plans name another form of the network, a key of ``network.PRESETS``."""
    if network == DEFAULT_NETWORK:
        return nnUNetPlannerFactorizer
    return type(f"{nnUNetPlannerFactorizer.__name__}_{network}", (nnUNetPlannerFactorizer,), {"network": network})
