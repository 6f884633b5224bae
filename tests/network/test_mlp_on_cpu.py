"""The residual MLP branch in slices gives the same numbers as its layers one after the other."""

from __future__ import annotations

import pytest
import torch
from gradients import assert_same_gradients
from torch import nn

from factorizer_nnunet.network.blocks import MLP
from factorizer_nnunet.network.norms import NORMS, InstanceNorm, build_norm
from factorizer_nnunet.network.ops import dispatch, slices
from factorizer_nnunet.network.ops.mlp import cpu, reference


def norm_and_mlp(kind: str, channels: int = 6) -> tuple[nn.Module, MLP]:
    torch.manual_seed(0)
    norm, mlp = build_norm(kind, channels).double(), MLP(channels, 1.5, 0.0).double()
    for parameter in [*norm.parameters(), *mlp.parameters()]:
        nn.init.normal_(parameter)
    return norm, mlp


@pytest.mark.parametrize("kind", ["instance", "layer"])
@pytest.mark.parametrize("size", [(5, 4, 7), (9, 11), (40, 30)])
def test_same_result_and_gradients_as_layer_by_layer(kind: str, size: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_BYTES", 64 * 9 * 8)  # 64 voxels: several slices a case, the last cut off
    norm, mlp = norm_and_mlp(kind)
    x = torch.randn(2, *size, 6, dtype=torch.float64).add_(3).requires_grad_()
    sliced, plain = cpu.residual_mlp(x, norm, mlp.expand, mlp.contract), x + mlp(norm(x))
    assert torch.equal(reference.residual_mlp(x, norm, mlp.expand, mlp.contract), plain)
    torch.testing.assert_close(sliced, plain, rtol=1e-12, atol=1e-12)
    wanted = [x, *norm.parameters(), *mlp.parameters()]
    assert_same_gradients(sliced, plain, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["instance", "layer"])
def test_inference_may_overwrite_its_input(kind: str) -> None:
    norm, mlp = norm_and_mlp(kind)
    x = torch.randn(2, 9, 11, 6, dtype=torch.float64)
    with torch.no_grad():
        expected = x + mlp(norm(x))
        result = cpu.residual_mlp(x, norm, mlp.expand, mlp.contract, overwrite=True)
    assert result.data_ptr() == x.data_ptr()
    torch.testing.assert_close(x, expected, rtol=1e-12, atol=1e-12)


def test_gradients_of_strided_input() -> None:
    norm, mlp = norm_and_mlp("layer")
    x = torch.randn(1, 6, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda t: cpu.residual_mlp(t.movedim(1, -1), norm, mlp.expand, mlp.contract), x, eps=1e-6, atol=1e-6
    )


def test_moments_of_a_channel_far_from_zero() -> None:
    norm = InstanceNorm(3)
    x = torch.randn(2, 50, 40, 3) + torch.tensor([0.0, 300.0, -3000.0])
    scale, shift = norm.scale_and_shift(x)
    wide = x.double()
    deviation, mean = torch.std_mean(wide, (1, 2), correction=0, keepdim=True)
    normed = x * scale[:, None, None] + shift[:, None, None]
    torch.testing.assert_close(normed, ((wide - mean) / deviation).float(), rtol=1e-3, atol=2e-3)


def test_only_large_volumes_on_the_cpu_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "residual_mlp", lambda *args: "in slices")
    monkeypatch.setattr(reference, "residual_mlp", lambda *args: "layer by layer")
    expand, contract = nn.Linear(32, 64), nn.Linear(64, 32)
    norms = {kind: build_norm(kind, 32) for kind in NORMS}
    large, small = torch.empty(1, 32, 32, 32, 32), torch.empty(1, 8, 8, 8, 32)
    assert dispatch.residual_mlp(large, norms["instance"], expand, contract) == "in slices"
    assert dispatch.residual_mlp(large, norms["layer"], expand, contract) == "in slices"
    assert dispatch.residual_mlp(large, norms["rms"], expand, contract) == "layer by layer"
    assert dispatch.residual_mlp(small, norms["layer"], expand, contract) == "layer by layer"
    with torch.autocast("cpu", torch.bfloat16):
        assert dispatch.residual_mlp(large, norms["layer"], expand, contract) == "layer by layer"
