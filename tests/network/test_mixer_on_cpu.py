"""The residual NMF branch in slabs gives the same numbers as its layers one after the other."""

from __future__ import annotations

import pytest
import torch
from gradients import assert_same_gradients
from torch import nn

from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.nmf import NMFSettings
from factorizer_nnunet.network.norms import build_norm
from factorizer_nnunet.network.ops import dispatch
from factorizer_nnunet.network.ops.mixer import cpu, reference, slabs


def norm_and_mixer(
    kind: str, ndim: int, border: str, channels: int = 16, rank: int = 1, shifts: tuple = (0.0, 0.5)
) -> tuple[nn.Module, NMFMixer]:
    torch.manual_seed(0)
    settings = NMFSettings(rank=rank)
    window = (4,) * ndim
    mixer = NMFMixer(channels, head_dim=4, window_size=window, shifts=shifts, border=border, nmf=settings)
    norm = build_norm(kind, channels)
    for parameter in [*norm.parameters(), *mixer.parameters()]:
        nn.init.normal_(parameter)
    return norm.double(), mixer.double()


@pytest.mark.parametrize("kind", ["instance", "layer"])
@pytest.mark.parametrize(
    ("size", "border"),
    [((9, 10, 13), "cut"), ((8, 16, 8), "cyclic"), ((9, 6, 13), "cyclic"), ((9, 7), "cut"), ((3, 20, 4), "cut")],
)
@pytest.mark.parametrize("shifts", [(0.0, 0.5), (0.0, 0.25, 0.5, 0.75)])
@pytest.mark.parametrize(("slab_bytes", "residual"), [(1, True), (2**13, True), (2**13, False)])
def test_same_result_and_gradients_as_layer_by_layer(
    kind: str,
    size: tuple,
    border: str,
    shifts: tuple,
    slab_bytes: int,
    residual: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slabs, "_SLAB_BYTES", slab_bytes)  # single rows of blocks, and several of them
    norm, mixer = norm_and_mixer(kind, len(size), border, shifts=shifts)
    x = torch.randn(2, *size, 16, dtype=torch.float64, requires_grad=True)
    in_slabs, plain = (one.normed_mixer(x, norm, mixer, residual=residual) for one in (cpu, reference))
    torch.testing.assert_close(in_slabs, plain, rtol=1e-11, atol=1e-11)
    wanted = [x, *norm.parameters(), *mixer.parameters()]
    assert_same_gradients(in_slabs, plain, wanted, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("shifts", [(0.0, 0.5), (0.25, 0.75), (0.0, 0.25, 0.5, 0.75)])
@pytest.mark.parametrize("border", ["cut", "cyclic"])
@pytest.mark.parametrize("residual", [True, False])
def test_inference_gives_the_same_and_keeps_its_input(shifts: tuple, border: str, residual: bool) -> None:
    norm, mixer = norm_and_mixer("instance", 3, border, shifts=shifts)
    x = torch.randn(2, 9, 10, 12, 16, dtype=torch.float64)
    with torch.no_grad():
        plain = reference.normed_mixer(x, norm, mixer, residual=residual)
        kept = x.clone()
        in_slabs = cpu.normed_mixer(x, norm, mixer, residual=residual)
        torch.testing.assert_close(in_slabs, plain, rtol=1e-11, atol=1e-11)
        assert torch.equal(x, kept)


@pytest.mark.parametrize("shifts", [[0.0, 0.5], [0.0, 0.25, 0.5, 0.75]])
@pytest.mark.parametrize("output", ["add", "gate"])
def test_inference_with_stages_that_overwrite_equals_training(
    shifts: list, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skips, outputs and the image itself belong to no stage."""
    monkeypatch.setattr(dispatch, "MIN_SLAB_VOLUME_BYTES", 0)
    monkeypatch.setattr(dispatch, "MIN_HIDDEN_BYTES", 0)
    torch.manual_seed(0)
    settings = {"shifts": shifts, "norm": "layer", "depthwise": "none", "n_blocks_per_stage": [2, 1, 1]}
    settings["nmf_output"] = output
    network = Factorizer(
        1, 2, features_per_stage=[16, 16, 16], strides=[[1] * 3, [2] * 3, [2] * 3], deep_supervision=True, **settings
    ).double()
    image = torch.randn(1, 1, 16, 12, 20, dtype=torch.float64)
    kept, expected = image.clone(), network(image)
    with torch.no_grad():
        outputs = network(image)
    assert torch.equal(image, kept)
    for ours, plain in zip(outputs, expected, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-11)


def test_empty_windows_give_zero_and_a_finite_gradient() -> None:
    norm, mixer = norm_and_mixer("layer", 3, "cut")
    nn.init.zeros_(norm.bias)
    x = torch.zeros(1, 8, 8, 8, 16, dtype=torch.float64, requires_grad=True)
    y = cpu.normed_mixer(x, norm, mixer, residual=True)
    torch.testing.assert_close(y, mixer.out_proj.bias.expand_as(y))
    y.square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_only_where_slabs_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "normed_mixer", lambda *args, residual: "in slabs")
    monkeypatch.setattr(reference, "normed_mixer", lambda *args, residual: "layer by layer")
    norm, mixer = norm_and_mixer("layer", 3, "cut", channels=32)
    large, small = torch.empty(1, 64, 64, 64, 32), torch.empty(1, 16, 16, 16, 32)
    rank_two = norm_and_mixer("layer", 3, "cut", channels=32, rank=2)[1]
    assert dispatch.normed_mixer(large, norm, mixer, residual=True) == "in slabs"
    assert dispatch.normed_mixer(small, norm, mixer, residual=True) == "layer by layer"
    assert dispatch.normed_mixer(large, build_norm("rms", 32), mixer, residual=True) == "layer by layer"
    assert dispatch.normed_mixer(large, norm, rank_two, residual=True) == "layer by layer"
    with torch.autocast("cpu", torch.bfloat16):
        assert dispatch.normed_mixer(large, norm, mixer, residual=True) == "layer by layer"
