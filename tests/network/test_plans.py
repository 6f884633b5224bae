"""Networks of 40 random plans, as nnU-Net's own planner lays out strides and kernels, run and train."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.planning.architecture import factorizer_architecture

SEEDS = range(40)
FEWEST_VOXELS, MOST_VOXELS = 4_000, 24_000


@dataclass(frozen=True)
class Plan:
    """What a plans configuration says about the network, and what a data set adds."""

    spacing: list[float]
    patch_size: list[int]
    strides: list[list[int]]
    kernel_sizes: list[list[int]]
    features_per_stage: list[int]
    input_channels: int
    num_classes: int
    batch_size: int


def random_plan(seed: int) -> Plan:
    """A plan of 3 to 7 stages in 2D or 3D, in turn; patch and widths are small, or 40 of them would take too long."""
    rng = random.Random(seed)
    ndim, num_stages = 2 + seed % 2, 3 + seed // 2 % 5
    while True:
        spacing = [rng.choice([0.5, 0.8, 1.0, 1.0, 1.6, 3.0, 5.0]) for _ in range(ndim)]
        if rng.random() < 0.7:
            spacing[1:] = [min(spacing)] * (ndim - 1)  # slices, as most scanners give
        size = [round(math.exp(rng.uniform(math.log(4), math.log(450)))) for _ in range(ndim)]
        if FEWEST_VOXELS <= math.prod(size) <= MOST_VOXELS:
            _, strides, kernels, patch, _ = get_pool_and_conv_props(spacing, size, 4, 999999)
            if len(strides) == num_stages and math.prod(patch) <= MOST_VOXELS:
                break
    base, most = rng.choice([8, 12, 20, 32]), rng.choice([40, 100, 320])
    return Plan(
        spacing=spacing,
        patch_size=[int(p) for p in patch],
        strides=[list(stride) for stride in strides],
        kernel_sizes=[list(kernel) for kernel in kernels],
        features_per_stage=[min(most, base * 2**stage) for stage in range(num_stages)],
        input_channels=rng.randint(1, 4),
        num_classes=rng.randint(2, 6),
        batch_size=rng.randint(1, 2),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_random_plans_run_and_train(seed: int) -> None:
    plan = random_plan(seed)
    unet = {key: getattr(plan, key) for key in ("features_per_stage", "strides", "kernel_sizes")}
    arguments = factorizer_architecture(unet, plan.spacing)["arch_kwargs"]
    torch.manual_seed(seed)
    network = Factorizer(plan.input_channels, plan.num_classes, **arguments, deep_supervision=True)
    outputs = network(torch.randn(plan.batch_size, plan.input_channels, *plan.patch_size))

    size, sizes = plan.patch_size, []
    for stride in plan.strides[:-1]:
        size = [s // t for s, t in zip(size, stride, strict=True)]
        sizes.append((plan.batch_size, plan.num_classes, *size))
    assert [tuple(y.shape) for y in outputs] == sizes

    sum(y.square().mean() for y in outputs).backward()
    assert all(torch.isfinite(y).all() for y in outputs)
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_the_plans_are_of_many_kinds() -> None:
    plans = [random_plan(seed) for seed in SEEDS]
    assert {(len(plan.patch_size), len(plan.strides)) for plan in plans} == {
        (d, s) for d in (2, 3) for s in range(3, 8)
    }
    assert sum([1, 2, 2] in plan.strides[:2] for plan in plans) >= 2
    assert sum([1, 3, 3] in plan.kernel_sizes for plan in plans) >= 2
    bottlenecks = [
        [p // math.prod(s) for p, s in zip(plan.patch_size, zip(*plan.strides, strict=True), strict=True)]
        for plan in plans
    ]
    assert sum(all(size % 2 for size in bottleneck) for bottleneck in bottlenecks) >= 3
    assert max(width for plan in plans for width in plan.features_per_stage) == 320
