"""Half precision: under autocast everything stays finite, and the NMF stays near float64.

Under autocast the mixer's two projections are matrix products in half precision, as in any network; what lies between
them is ours. So an error is asked for twice, as the norm of the difference over the norm of the reference:

* against the same mixer in float64, fed with the same nonnegative activations that ``in_proj`` gave in half precision.
  This is what our arithmetic adds.
* against the same mixer in float64 from the start, with inputs and weights as they are. This also holds the rounding
  of inputs, weights and ``in_proj``, which moves every entry of X by up to 2⁻⁹ in bfloat16. A factorisation of rank 2
  or 3 may answer with several times as much, in any precision, so there the bound for bfloat16 is wider.

float16 has steps of 2⁻²⁴ ≈ 6e-8 below 6e-5, and the mixer's output for activations of 1e-6 is some 2e-7. No arithmetic
between the projections could make that precise to a hundredth: below activations of 1e-4 (1e-3 for a window with a
single voxel, whose output is mostly far smaller numbers), the bound allows one such step per value in addition. At the
other end, float16 ends at 65504: from activations of 1e5 on, projections overflow.
"""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.nmf import STARTS, NMFSettings
from factorizer_nnunet.network.solvers import SOLVERS

SIZE, CHANNELS = (6, 4, 7), 8
TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 2e-2}
STEP = {torch.float16: 2.0**-24, torch.bfloat16: 0.0}
SCALES = (1e-6, 1e-4, 1.0, 1e4)
# In the mixer, all solvers but the multiplicative one are one and the same for rank 1.
EVERY_NMF = [*itertools.product((1,), ("hals", "mu"), STARTS), *itertools.product((2, 3), SOLVERS, STARTS)]
half = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def build_mixer(rank: int, solver: str, start: str) -> NMFMixer:
    """A mixer whose output is the NMF's alone: a bias would hide errors of small activations."""
    torch.manual_seed(0)
    mixer = NMFMixer(
        CHANNELS,
        head_dim=4,
        window_size=(4, 4, 4),
        shifts=(0.0, 0.5),
        border="cut",
        nmf=NMFSettings(rank=rank, solver=solver, start=start),
        stage_size=SIZE,
    )
    torch.nn.init.zeros_(mixer.out_proj.bias)
    return mixer


def activations(kind: str, scale: float) -> Tensor:
    """Inputs of the mixer: every voxel, those of one side, a single voxel, or none differ from 0."""
    x = scale * torch.randn(1, *SIZE, CHANNELS, generator=torch.Generator().manual_seed(1))
    support = torch.zeros(1, *SIZE, 1)
    support[{"dense": ..., "side": (0, slice(3)), "voxel": (0, 1, 2, 3), "empty": slice(0)}[kind]] = 1
    return x * support


def run(mixer: NMFMixer, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Output and X, the nonnegative activations, under autocast."""
    with torch.autocast("cpu", dtype=dtype):
        return mixer(x), mixer.nonnegative(x)


def excess(result: Tensor, expected: Tensor, tolerance: float, step: float) -> float:
    """Norm of the error over what is allowed: a share of the norm, and one step per value."""
    allowed = tolerance * torch.linalg.norm(expected) + step * math.sqrt(expected.numel())
    return float(torch.linalg.norm(result.double() - expected) / allowed)


@half
@pytest.mark.parametrize(("rank", "solver", "start"), EVERY_NMF)
def test_the_mixer_is_finite_forward_and_backward(dtype: torch.dtype, rank: int, solver: str, start: str) -> None:
    mixer = build_mixer(rank, solver, start)
    inputs = [("empty", 1.0), *itertools.product(("dense", "side", "voxel"), SCALES)]
    for kind, scale in inputs:
        mixer.zero_grad()
        x = activations(kind, scale).requires_grad_()
        y, _ = run(mixer, x, dtype)
        (y.float() * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).mean().backward()  # a mean, as losses are
        for tensor in (y, x.grad, *(p.grad for p in mixer.parameters())):
            assert torch.isfinite(tensor).all(), (kind, scale)
        if kind == "empty":
            assert not y.any()
            assert not x.grad.any()


@half
@pytest.mark.parametrize("solver", SOLVERS)
def test_gradients_of_order_one_do_not_overflow_on_their_way_to_the_input(dtype: torch.dtype, solver: str) -> None:
    # The gradients of the projections' weights do: they sum over all voxels, and no matrix product in float16 can hold
    # them. That is what loss scaling is for.
    for rank, kind in itertools.product((1, 2), ("dense", "side", "voxel")):
        x = activations(kind, 1e4).requires_grad_()
        y, _ = run(build_mixer(rank, solver, "constant"), x, dtype)
        y.float().sum().backward()
        assert torch.isfinite(x.grad).all()


@half
@pytest.mark.parametrize(("rank", "solver", "start"), EVERY_NMF)
def test_the_mixer_stays_near_float64(dtype: torch.dtype, rank: int, solver: str, start: str) -> None:
    mixer = build_mixer(rank, solver, start)
    exact = copy.deepcopy(mixer).double()
    for kind, scale in itertools.product(("dense", "side", "voxel"), SCALES):
        x = activations(kind, scale)
        with torch.no_grad():
            y, nonnegative = run(mixer, x, dtype)
            same_activations = exact.out_proj(exact.reconstruct(nonnegative.double()))
            from_the_start = exact(x.double())
        step = STEP[dtype] if scale < (1e-3 if kind == "voxel" else 1e-4) else 0
        assert excess(y, same_activations, TOLERANCE[dtype], step) <= 1, (kind, scale)
        wide = 0.08 if rank > 1 and dtype == torch.bfloat16 else TOLERANCE[dtype]  # measured up to 0.04
        assert excess(y, from_the_start, wide, step) <= 1, (kind, scale)


@half
def test_factors_for_explanations_are_in_float32(dtype: torch.dtype) -> None:
    mixer = build_mixer(2, "hals", "constant")
    with torch.autocast("cpu", dtype=dtype):
        factors = mixer.decompose(activations("dense", 1e4))
    assert all(f.dtype == torch.float32 and torch.isfinite(f).all() for pair in factors for f in pair)


def losses(outputs: list[Tensor]) -> Tensor:
    """Cross-entropy of every resolution against class 0: as bounded in its gradient as nnU-Net's loss."""
    return sum(
        F.cross_entropy(y.float(), torch.zeros(y[:, 0].shape, dtype=torch.long, device=y.device)) for y in outputs
    )


@half
@pytest.mark.parametrize("norm", ["instance", "layer", "rms"])
@pytest.mark.parametrize("size", [(24, 16), (16, 12, 20)], ids=["2D", "3D"])
def test_the_network_is_finite_forward_and_backward(dtype: torch.dtype, norm: str, size: tuple) -> None:
    torch.manual_seed(0)
    ndim = len(size)
    network = Factorizer(
        2, 3, features_per_stage=[16, 32, 64], strides=[[1] * ndim] + [[2] * ndim] * 2, norm=norm, deep_supervision=True
    )
    noise = torch.randn(1, 2, *size)
    background = torch.zeros_like(noise)
    single = background.clone()
    single[(..., *(s // 2 for s in size))] = 10
    for image in (background, single, *(scale * noise for scale in (1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4))):
        network.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            outputs = network(image)
        losses(outputs).backward()
        assert all(torch.isfinite(y).all() for y in outputs)
        assert [name for name, p in network.named_parameters() if not torch.isfinite(p.grad).all()] == []


@half
def test_the_network_stays_near_float32(dtype: torch.dtype) -> None:
    """Roundings of all layers together; measured 8e-4 and 6e-3."""
    torch.manual_seed(0)
    network = Factorizer(2, 3, features_per_stage=[16, 32, 64], strides=[[1] * 3] + [[2] * 3] * 2).eval()
    image = torch.randn(1, 2, 16, 12, 20)
    with torch.no_grad():
        expected = network(image).double()
        with torch.autocast("cpu", dtype=dtype):
            result = network(image)
    assert excess(result, expected, TOLERANCE[dtype], 0) <= 1
