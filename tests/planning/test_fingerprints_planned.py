"""Data sets of every kind are planned within the memory target, with networks that build and run.

Every sixth of sixty; ``pytest -m exhaustive tests/planning`` plans the others.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fingerprints import FINGERPRINTS, Fingerprint
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.network import FactorizerConfig
from factorizer_nnunet.planning.memory import GB, estimate
from factorizer_nnunet.planning.planner import planner_for
from factorizer_nnunet.training.building import build_network


def test_there_are_sixty() -> None:
    assert len({fingerprint.name for fingerprint in FINGERPRINTS}) >= 60


@pytest.mark.parametrize(
    "fingerprint",
    [
        pytest.param(fingerprint, id=fingerprint.name, marks=[pytest.mark.exhaustive] if number % 6 else [])
        for number, fingerprint in enumerate(FINGERPRINTS)
    ],
)
def test_a_fingerprint_is_planned_for_its_memory(folders: Path, fingerprint: Fingerprint) -> None:
    dataset = fingerprint.write(folders / "nnUNet_raw", folders / "nnUNet_preprocessed", 21)
    planner = planner_for(fingerprint.size)(dataset)
    manager = PlansManager(planner.plan_experiment())
    assert manager.available_configurations
    for name in manager.available_configurations:
        settings = manager.get_configuration(name)
        channels = determine_num_input_channels(manager, settings, planner.dataset_json)
        config = FactorizerConfig.from_settings(settings.network_arch_init_kwargs)
        needed = estimate(config, settings.patch_size, settings.batch_size, channels, fingerprint.classes)
        assert needed.total <= planner.UNet_vram_target_GB * GB
        assert settings.batch_size >= 2
        # As few voxels as the network takes: two at the lowest resolution.
        image = torch.rand(1, channels, *config.total_stride[:-1], 2 * config.total_stride[-1])
        network = build_network(settings, channels, fingerprint.classes, deep_supervision=True).eval()
        with torch.no_grad():
            outputs = network(image)
        assert outputs[0].shape == (1, fingerprint.classes, *image.shape[2:])
        assert all(size % total == 0 for size, total in zip(settings.patch_size, config.total_stride, strict=True))
