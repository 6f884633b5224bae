"""Sixty data sets of every kind: all are planned, below the memory target, with networks that build and run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.fingerprints import FINGERPRINTS, Fingerprint
from factorizer_nnunet.planning.memory import GB, estimate, full_config
from factorizer_nnunet.planning.planners import planner_for
from factorizer_nnunet.training.building import build_network


def test_there_are_sixty() -> None:
    assert len({fingerprint.name for fingerprint in FINGERPRINTS}) >= 60


@pytest.mark.parametrize("fingerprint", FINGERPRINTS, ids=lambda fingerprint: fingerprint.name)
def test_a_fingerprint_is_planned_for_its_memory(folders: Path, fingerprint: Fingerprint) -> None:
    dataset = fingerprint.write(folders / "nnUNet_raw", folders / "nnUNet_preprocessed", 21)
    planner = planner_for(fingerprint.preset)(dataset)
    manager = PlansManager(planner.plan_experiment())
    assert manager.available_configurations
    for name in manager.available_configurations:
        settings = manager.get_configuration(name)
        channels = determine_num_input_channels(manager, settings, planner.dataset_json)
        config = full_config(settings.network_arch_init_kwargs)
        needed = estimate(config, settings.patch_size, settings.batch_size, channels, fingerprint.classes)
        assert needed.total <= planner.UNet_vram_target_GB * GB
        assert settings.batch_size >= 2
        with torch.device("meta"):
            build_network(settings, channels, fingerprint.classes, deep_supervision=False)
    # One of them runs on tensors without memory (benchmarks.plan_fingerprints runs all, on real ones); under autocast,
    # as on a GPU, the volume stays whole.
    with FakeTensorMode(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network = build_network(settings, channels, fingerprint.classes, deep_supervision=True).eval()
        outputs = network(torch.empty(1, channels, *map(int, settings.patch_size)))
    assert outputs[0].shape == (1, fingerprint.classes, *settings.patch_size)
