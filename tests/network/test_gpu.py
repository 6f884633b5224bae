"""What only a CUDA device shows: the same numbers, half precision, compilation. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from factorizer_nnunet.network import Factorizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def network(ndim: int) -> Factorizer:
    torch.manual_seed(0)
    return Factorizer(2, 3, [16, 32, 64], [[1] * ndim, [2] * ndim, [2] * ndim], deep_supervision=True)


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
    with torch.autocast("cuda"):
        loss = sum(y.float().square().mean() for y in run(x))
    scaler = torch.amp.GradScaler("cuda")
    scaler.scale(loss).backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
