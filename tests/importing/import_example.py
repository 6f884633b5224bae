"""A small planned data set and what is imported for it, for the tests of importing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import stock_plans
import torch
from upstream_example import CONFIG

from factorizer_nnunet.importing.model import ImportedModel, ImportRequest, import_upstream
from factorizer_nnunet.network import Factorizer

NAME = "Dataset007_Tiny"
SIZE = tuple(CONFIG["spatial_size"])


def configuration(ndim: int) -> dict[str, Any]:
    axes = slice(3 - ndim, None)
    return {
        **stock_plans.configuration(ndim),
        "batch_size": 12,
        "patch_size": [8, 16, 24][axes],
        "median_image_size_in_voxels": [10.0, 20.0, 30.0][axes],
        "spacing": [3.0, 2.0, 1.0][axes],
        "architecture": {"network_class_name": "any.Network", "arch_kwargs": {}, "_kw_requires_import": []},
    }


def base_plans() -> dict[str, Any]:
    return {
        "dataset_name": NAME,
        "plans_name": "nnUNetFactorizerPlans",
        "original_median_spacing_after_transp": [3.0, 2.0, 1.0],
        "original_median_shape_after_transp": [10, 20, 30],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": configuration(2),
            "3d_lowres": {**configuration(3), "next_stage": "3d_cascade_fullres"},
            "3d_fullres": configuration(3),
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
            "wide": {"inherits_from": "3d_lowres", "batch_size": 3},
        },
        "experiment_planner_used": "nnUNetPlannerFactorizer",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}, "1": {}},
    }


def describe(channels: int, outputs: int, regions: bool = False) -> dict[str, Any]:
    """``dataset.json`` of so many channels, and outputs as nnU-Net counts them."""
    if regions:
        labels = {f"region {i}": list(range(i + 1, outputs + 2)) for i in range(outputs)}
        order = {"regions_class_order": list(range(1, outputs + 1))}
    else:
        labels, order = {f"label {i}": i for i in range(1, outputs)}, {}
    return {
        "channel_names": {str(i): f"channel {i}" for i in range(channels)},
        "labels": {"background": 0, **labels},
        "numTraining": 3,
        "file_ending": ".nii.gz",
        **order,
    }


def write_dataset(folders: Path, description: dict[str, Any], plans: dict[str, Any] | None = None) -> None:
    dataset = folders / "nnUNet_preprocessed" / NAME
    write_json(dataset / "dataset.json", description)
    write_json(dataset / "nnUNetFactorizerPlans.json", base_plans() if plans is None else plans)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def contents(folders: Path) -> dict[str, bytes | None]:
    """All below nnU-Net's folders; folders themselves as None."""
    return {
        str(path.relative_to(folders)): path.read_bytes() if path.is_file() else None
        for path in folders.glob("nnUNet_*/**/*")
    }


def run_import(folders: Path, **changes: Any) -> ImportedModel:
    request = {"weights": folders / "weights.pt", "config_file": folders / "config.json", "dataset": 7, **changes}
    return import_upstream(ImportRequest(**request))


def built_network(imported: ImportedModel, configuration: str = "3d_fullres") -> Factorizer:
    """The network that nnU-Net builds from the model folder, with the weights it reads there."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(str(imported.targets.model.plans_file))
    description = json.loads(imported.targets.model.dataset_file.read_text())
    settings = plans.get_configuration(configuration)
    network = get_network_from_plans(
        settings.network_arch_class_name,
        settings.network_arch_init_kwargs,
        settings.network_arch_init_kwargs_req_import,
        determine_num_input_channels(plans, settings, description),
        plans.get_label_manager(description).num_segmentation_heads,
        deep_supervision=False,
    )
    network.load_state_dict(saved(imported)["network_weights"])
    return network


def saved(imported: ImportedModel) -> dict[str, Any]:
    return torch.load(imported.targets.fold.checkpoint(), weights_only=True)
