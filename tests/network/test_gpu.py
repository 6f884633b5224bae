"""What only a CUDA device shows: the same numbers, half precision, compilation. Skipped without one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.nmf import STARTS, NMFSettings
from factorizer_nnunet.network.solvers import SOLVERS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def network(ndim: int) -> Factorizer:
    torch.manual_seed(0)
    return Factorizer(
        2, 3, features_per_stage=[16, 32, 64], strides=[[1] * ndim, [2] * ndim, [2] * ndim], deep_supervision=True
    )


@pytest.mark.parametrize("size", [(40, 56), (24, 20, 28)])
def test_outputs_and_gradients_equal_those_of_the_cpu(size: tuple) -> None:
    results = []
    x = torch.randn(2, 2, *size)
    for device in ("cpu", "cuda"):
        net = network(len(size)).double().to(device)
        outputs = net(x.double().to(device))
        sum(y.square().mean() for y in outputs).backward()
        results.append([*(y.detach().cpu() for y in outputs), *(p.grad.cpu() for p in net.parameters())])
    for cpu, gpu in zip(*results, strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_training_step_under_autocast_is_finite(compiled: bool) -> None:
    net = network(3).cuda()
    run = torch.compile(net) if compiled else net
    x = torch.zeros(2, 2, 32, 32, 32, device="cuda")
    x[..., 16:] = 10 * torch.randn(2, 2, 32, 32, 16, device="cuda")
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cuda")
    before = {name: p.clone() for name, p in net.named_parameters()}
    for _ in range(12):  # a scale that is too large is halved until a step is taken
        optimizer.zero_grad()
        with torch.autocast("cuda"):
            loss = sum(y.float().square().mean() for y in run(x))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.isfinite(loss)
    assert all(torch.isfinite(p).all() for p in net.parameters())
    assert all(torch.isfinite(p.grad).all() and not torch.equal(p, before[n]) for n, p in net.named_parameters())


def test_a_compiled_network_uses_the_kernels() -> None:
    """While tracing, torch 2.11 reports every network as being exported, and exported networks use no kernels."""
    pytest.importorskip("triton", reason="Triton is not available for this platform")
    run = torch.compile(network(3).cuda())
    x = torch.randn(1, 2, 32, 32, 32, device="cuda")
    with torch.no_grad(), torch.autocast("cuda"):
        run(x)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            run(x)
    called = {event.key for event in profiler.key_averages()}
    assert {"factorizer_nnunet::residual_mlp", "factorizer_nnunet::residual_mixer"} <= called


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-2), (torch.bfloat16, 2e-2)], ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("start", STARTS)
def test_the_mixer_under_autocast_stays_near_float64(
    dtype: torch.dtype, tolerance: float, rank: int, solver: str, start: str
) -> None:
    """Against float64 on the same half-precision activations, see ``test_precision``."""
    torch.manual_seed(0)
    size = (12, 8, 10)
    nmf = NMFSettings(rank=rank, solver=solver, start=start)
    layout = {"head_dim": 8, "window_size": (8, 8, 8), "shifts": (0.0, 0.5), "border": "cut"}
    mixer = NMFMixer(16, **layout, nmf=nmf, stage_size=size).cuda()
    torch.nn.init.zeros_(mixer.out_proj.bias)
    exact = copy.deepcopy(mixer).double()
    for scale in (1e-4, 1.0, 1e4):
        x = scale * torch.randn(1, *size, 16, device="cuda", requires_grad=True)
        with torch.autocast("cuda", dtype=dtype):
            y, nonnegative = mixer(x), mixer.nonnegative(x)
        y.float().mean().backward()
        expected = exact.out_proj(exact.reconstruct(nonnegative.double()))
        assert torch.linalg.norm(y.double() - expected) <= tolerance * torch.linalg.norm(expected)
        assert all(torch.isfinite(p.grad).all() for p in mixer.parameters())
