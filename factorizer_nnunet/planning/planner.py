"""nnU-Net's planner, configured for Factorizer.

nnU-Net decides spacing, normalisation, resampling and how patches shrink; network, memory and thus patch and batch size
are Factorizer's. nnU-Net's planner asks ``static_estimate_VRAM_usage`` whether a patch fits; here the answer is in
bytes, from ``memory``. The stock commands build the network from the plans file alone.
"""

from __future__ import annotations

import bisect
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.json_export import recursive_fix_for_json_export
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.network import PLANNED_FORMS, FactorizerConfig, variant_arguments
from factorizer_nnunet.nnunet import names
from factorizer_nnunet.nnunet.dataset_json import CASES_KEY, LABELS_KEY, DatasetJson
from factorizer_nnunet.nnunet.environment import AUGMENTATION_VARIABLE, Augmentation, augmentation_setting
from factorizer_nnunet.planning.architecture import architecture_entry, factorizer_architecture
from factorizer_nnunet.planning.augmentation_memory import augmentation_bytes
from factorizer_nnunet.planning.memory import GB, estimate, with_reserve
from factorizer_nnunet.planning.sizes import DEFAULT_SIZE, SIZES, Size

_MIN_BATCH = 2  # nnU-Net's
_MIN_STAGES = 3  # fewer leave no deep supervision
CASCADE = "3d_cascade_fullres"
DEFAULT_CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")


class nnUNetPlannerFactorizer(ExperimentPlanner):
    """Plans patch, batch, widths, depth and windows of a Factorizer for a GPU memory target.

    Pass the class to ``nnunetv2.experiment_planning.plan_and_preprocess_api.plan_experiment_dataset``: nnU-Net finds
    planners by name only in its own package. The arguments are those of ``ExperimentPlanner``; None stands for the
    memory target (GB) and the plans name of the size.

    With ``nnUNet_factorizer_augmentation=device``, the memory of augmentation on the device counts, too.

    Raises:
        UserError: the variable has a wrong value; or, while planning, the target is too small for any patch, and no
            plans have been written.
    """

    size_name: str | None = None  # a key of sizes.SIZES; None is sizes.DEFAULT_SIZE
    variant: str | None = None  # a key of network.VARIANTS; None is the default form

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float | None = None,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str | None = None,
        overwrite_target_spacing: list[float] | tuple[float, ...] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        size = self.size
        super().__init__(
            dataset_name_or_id,
            size.memory_target_gb if gpu_memory_target_in_gb is None else gpu_memory_target_in_gb,
            preprocessor_name,
            names.plans_name(self.size_name, self.variant) if plans_name is None else plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        # nnU-Net compares estimates with these: here in bytes, for the smallest batch.
        self.UNet_reference_val_2d = self.UNet_reference_val_3d = GB
        self.UNet_reference_val_corresp_GB = 1
        self.UNet_reference_val_corresp_bs_2d = self.UNet_reference_val_corresp_bs_3d = _MIN_BATCH
        self.UNet_min_batch_size = _MIN_BATCH
        self.UNet_base_num_features = size.width
        self.UNet_max_features_2d, self.UNet_max_features_3d = size.widest_2d, size.widest_3d
        self._device_augments = augmentation_setting() is Augmentation.DEVICE
        self._previous_stage_channels = 0  # nonzero while a cascade is planned

    @property
    def size(self) -> Size:
        """Width and depth of the network."""
        return DEFAULT_SIZE if self.size_name is None else SIZES[self.size_name]

    def get_plans_for_configuration(
        self,
        spacing: np.ndarray | Sequence[float],
        median_shape: Sequence[float],
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict[str, Any],
    ) -> dict[str, Any]:
        """Plan one configuration: nnU-Net shrinks the patch until it fits; then the largest batch that fits is chosen.

        Args:
            spacing: voxel size in mm, two or three axes.
            median_shape: of the resampled cases, in voxels.
            data_identifier: folder name of the preprocessed data.
            approximate_n_voxels_dataset: voxels of all training cases; a batch has at most 1/20 of them, as in nnU-Net.

        Raises:
            UserError: no patch fits the memory target; the message gives the smallest possible target.
        """
        self._search = _Search(
            spacing=[float(mm) for mm in spacing],
            median_shape=list(median_shape),
            configuration=data_identifier.removeprefix(f"{self.plans_identifier}_"),
        )
        # nnU-Net caches by patch and strides; our estimate also depends on the spacing, so the cache is not used.
        plan = super().get_plans_for_configuration(
            spacing, median_shape, data_identifier, approximate_n_voxels_dataset, {}
        )
        patch = [int(v) for v in plan["patch_size"]]
        plan["architecture"] = self._architecture(plan["architecture"]["arch_kwargs"], patch)
        covered = round(approximate_n_voxels_dataset * self.max_dataset_covered / math.prod(patch))
        plan["batch_size"] = self._largest_batch(plan["architecture"]["arch_kwargs"], patch, covered)
        return plan

    def static_estimate_VRAM_usage(  # noqa: N802 - nnU-Net's name
        self,
        patch_size: Sequence[int],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: Mapping[str, Any],
        arch_kwargs_req_import: Sequence[str],
    ) -> float:
        """Bytes that a GPU needs to train on two such patches; ``arch_kwargs`` are those of a U-Net.

        Raises:
            UserError: the patch is below the smallest allowed, as no larger patch fitted.
        """
        patch = [int(v) for v in patch_size]
        search = self._search
        stages = len(arch_kwargs["strides"])
        search.most_stages = max(search.most_stages, stages)
        least = [min(self.UNet_featuremap_min_edge_length, median) for median in search.median_shape]
        too_small = any(size < edge for size, edge in zip(patch, least, strict=False))
        if search.smallest_patch and (too_small or stages < min(_MIN_STAGES, search.most_stages)):
            raise UserError(self._does_not_fit(search))
        arguments = self._architecture(arch_kwargs, patch)["arch_kwargs"]
        needed = self._bytes(arguments, patch, _MIN_BATCH, output_channels)
        if needed < search.smallest_bytes:
            search.smallest_bytes, search.smallest_patch = needed, patch
        return needed

    def _does_not_fit(self, search: _Search) -> str:
        target = math.ceil(search.smallest_bytes / GB * 100) / 100
        return (
            f"a GPU memory target of {self.UNet_vram_target_GB:g} GB is too small for {search.configuration}: even "
            f"{_MIN_BATCH} patches of {' × '.join(map(str, search.smallest_patch))} voxels need {target:g} GB, "
            f"{with_reserve(0) / GB:g} GB of it for CUDA itself; give --gpu-memory-target {target:g} or more"
        )

    def _architecture(self, unet: Mapping[str, Any], patch: Sequence[int]) -> dict[str, Any]:
        name = self.variant or "default"
        if name not in PLANNED_FORMS:
            return architecture_entry(variant_arguments(name, patch))
        return factorizer_architecture(unet, self._search.spacing, self.size, PLANNED_FORMS[name])

    def _bytes(self, arguments: Mapping[str, Any], patch: Sequence[int], batch: int, classes: int) -> float:
        dataset = DatasetJson(self.dataset_json)
        channels = len(dataset.channel_names) + self._previous_stage_channels
        step = estimate(FactorizerConfig.from_settings(arguments), patch, batch, channels, classes)
        if not self._device_augments:
            return step.total
        previous, targets = self._previous_stage_channels, classes if dataset.has_regions else 1
        return with_reserve(step.step + augmentation_bytes(patch, batch, channels - previous, previous, targets))

    def _largest_batch(self, arguments: Mapping[str, Any], patch: Sequence[int], covered: int) -> int:
        """The largest batch that fits the target, at most ``covered`` and at least two patches."""
        sizes = range(_MIN_BATCH, max(_MIN_BATCH, covered) + 1)
        classes = len(self.dataset_json[LABELS_KEY])
        fitting = bisect.bisect_right(
            sizes, self.UNet_vram_target_GB * GB, key=lambda batch: self._bytes(arguments, patch, batch, classes)
        )
        return sizes[max(0, fitting - 1)]

    def save_plans(self, plans: dict[str, Any]) -> None:
        """Write the plans atomically and keep configurations that only the old file has, as nnU-Net does.

        nnU-Net writes in place, so that an interruption leaves half a file, on which every later command fails.
        """
        if CASCADE in plans["configurations"]:
            plans["configurations"][CASCADE].update(self._cascade(plans))
        recursive_fix_for_json_export(plans)
        plans_file = Path(nnUNet_preprocessed, self.dataset_name, f"{self.plans_identifier}.json")
        if plans_file.is_file():
            old = load_json_object(plans_file, "Remove it and plan again")
            planned = plans["configurations"]
            custom = {name: values for name, values in old["configurations"].items() if name not in planned}
            plans["configurations"].update(custom)
            if old != json.loads(json.dumps(plans)):
                kept = _unused(plans_file)
                write_text_atomically(kept, json.dumps(old, indent=4))
                print(f"NOTE: the previous plans were different, perhaps edited; they are kept in {kept}")
        plans_file.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(plans_file, json.dumps(plans, indent=4))
        print(f"Plans were saved to {plans_file}")
        if self._device_augments:
            print(f"{AUGMENTATION_VARIABLE}=device: they leave memory for augmentation on the GPU")

    def _cascade(self, plans: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that differ from 3d_fullres, as the cascade also gets the segmentation of 3d_lowres."""
        fullres = plans["configurations"]["3d_fullres"]
        manager = PlansManager(dict(plans))
        channels = determine_num_input_channels(manager, manager.get_configuration(CASCADE), self.dataset_json)
        image = determine_num_input_channels(manager, manager.get_configuration("3d_fullres"), self.dataset_json)
        self._previous_stage_channels = channels - image
        voxels = math.prod(map(float, fullres["median_image_size_in_voxels"])) * self.dataset_json[CASES_KEY]
        own = self.get_plans_for_configuration(
            np.array(fullres["spacing"]),
            fullres["median_image_size_in_voxels"],
            f"{self.plans_identifier}_{CASCADE}",
            voxels,
            {},
        )
        self._previous_stage_channels = 0
        return {
            key: own[key]
            for key in ("patch_size", "batch_size", "architecture")
            if json.dumps(own[key], default=int) != json.dumps(fullres[key], default=int)
        }


def planner_for(size: str | None = None, variant: str | None = None) -> type[nnUNetPlannerFactorizer]:
    """The planner of a size or variant, with a class name that says so, since plans store it."""
    name = f"{nnUNetPlannerFactorizer.__name__}{size or ''}{'' if variant is None else f'_{variant}'}"
    return type(name, (nnUNetPlannerFactorizer,), {"size_name": size, "variant": variant})


def _unused(plans_file: Path) -> Path:
    """An unused file name next to the plans, for the previous plans."""
    names = (
        plans_file.with_suffix(f".previous{number or ''}.json") for number in itertools.chain((0,), itertools.count(2))
    )
    return next(name for name in names if not name.exists())


@dataclass
class _Search:
    """State of the search for a patch of one configuration."""

    spacing: list[float]
    median_shape: list[float]
    configuration: str
    most_stages: int = 0
    smallest_bytes: float = math.inf  # of the patches tried
    smallest_patch: list[int] = field(default_factory=list)
