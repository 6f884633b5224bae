"""The Triton kernels against plain PyTorch, in Triton's interpreter where there is no GPU."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.nmf import NMFSettings
from factorizer_nnunet.network.norms import InstanceNorm
from factorizer_nnunet.network.ops import dispatch
from factorizer_nnunet.network.ops.dispatch import KERNELS_VARIABLE, can_use_kernels, kernel_precision
from factorizer_nnunet.network.ops.mixer.block_geometry import geometry, membership
from factorizer_nnunet.network.ops.mixer.gram import leading_projection, mix_families
from factorizer_nnunet.network.windows import axis_shifts, families, window_grid

pytest.importorskip("triton", reason="Triton is not available for this platform")

from factorizer_nnunet.network.ops.depthwise import triton as depthwise
from factorizer_nnunet.network.ops.mixer import triton as mixer
from factorizer_nnunet.network.ops.mixer import triton_families, triton_windows
from factorizer_nnunet.network.ops.mlp import triton as mlp
from factorizer_nnunet.network.ops.norm import triton as norms

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# A GPU multiplies float32 with 10 bits of the fraction in the kernels that autocast leads to.
EXACT = DEVICE == "cpu"

# spatial size, window, shifts, border: uneven sizes, windows of other shapes, two families of shifts, one full axis
GRIDS = {
    "3D, cut": ((8, 10, 4), (8, 8, 8), (0.0, 0.5), "cut"),
    "2D, a full axis": ((9, 10), (4, None), (0.0, 0.5), "cut"),
    "two families, cyclic": ((8, 4), (8, 4), (0.0, 0.25, 0.5, 0.75), "cyclic"),
    "two families, cut": ((9, 8), (8, 8), (0.0, 0.25, 0.5, 0.75), "cut"),
    "one window": ((3, 5, 4), (None, None, None), (0.0,), "cut"),
}
grids = pytest.mark.parametrize("name", GRIDS)


def differences(
    ours: Callable[[], Tensor], theirs: Callable[[], Tensor], inputs: Sequence[Tensor], references: Sequence[Tensor]
) -> list[float]:
    """Relative errors of the output and of the gradients of ``inputs``."""
    y, z = ours(), theirs()
    direction = torch.randn(y.shape, device=y.device)
    got = torch.autograd.grad(y, inputs, direction.to(y.dtype))
    expected = torch.autograd.grad(z, references, direction.to(z.dtype))
    pairs = [(y, z), *zip(got, expected, strict=True)]
    return [float((a - b).detach().double().norm() / b.detach().double().norm()) for a, b in pairs]


def build_mixer(name: str, channels: int) -> NMFMixer:
    _, window, shifts, border = GRIDS[name]
    settings = {"head_dim": 4, "window_size": window, "shifts": shifts, "border": border, "nmf": NMFSettings()}
    return NMFMixer(channels, **settings).to(DEVICE)


def build_norm(kind: type[nn.Module], channels: int) -> nn.Module:
    norm = kind(channels).to(DEVICE)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize(
    ("size", "kernel", "channels"), [((3, 18, 5), (3, 3, 3), 8), ((3, 4, 19), (1, 3, 3), 20), ((5, 17), (3, 3), 5)]
)
def test_depthwise_convolution(size: tuple, kernel: tuple, channels: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, *size, channels, device=DEVICE, requires_grad=True)
    weight = torch.randn(channels, 1, *kernel, device=DEVICE, requires_grad=True)
    bias = torch.randn(channels, device=DEVICE, requires_grad=True)
    inputs = [x, weight, bias]
    wide = [value.detach().double().requires_grad_() for value in inputs]
    convolve = {2: F.conv2d, 3: F.conv3d}[len(size)]

    def plainly() -> Tensor:
        padding = [side // 2 for side in kernel]
        y = convolve(wide[0].movedim(-1, 1), *wide[1:], padding=padding, groups=channels)
        return y.movedim(1, -1)

    assert max(differences(lambda: depthwise.depthwise_conv(*inputs), plainly, inputs, wide)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("channels", "hidden", "norm"), [(32, 64, nn.LayerNorm), (20, 50, InstanceNorm), (40, 80, nn.LayerNorm)]
)
def test_mlp(channels: int, hidden: int, norm: type[nn.Module], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 7, channels, device=DEVICE).to(dtype).requires_grad_()
    first = build_norm(norm, channels)
    expand, contract = nn.Linear(channels, hidden).to(DEVICE), nn.Linear(hidden, channels).to(DEVICE)
    modules = nn.ModuleList([first, expand, contract])
    wide = copy.deepcopy(modules).double()
    wide_x = x.detach().double().requires_grad_()
    errors = differences(
        lambda: mlp.residual_mlp(x, first, expand, contract, dtype),
        lambda: wide_x + wide[2](F.gelu(wide[1](wide[0](wide_x)))),
        [x, *modules.parameters()],
        [wide_x, *wide.parameters()],
    )
    assert max(errors) < (1e-5 if EXACT and dtype == torch.float32 else 5e-3)


@grids
@pytest.mark.parametrize(("norm", "residual"), [(nn.LayerNorm, True), (InstanceNorm, True), (InstanceNorm, False)])
def test_mixer_of_narrow_layers(name: str, norm: type[nn.Module], residual: bool) -> None:
    torch.manual_seed(0)
    size, channels = GRIDS[name][0], 12
    ours, first = build_mixer(name, channels), build_norm(norm, channels)
    x = torch.randn(2, *size, channels, device=DEVICE, requires_grad=True)
    modules = nn.ModuleList([first, ours])
    wide = copy.deepcopy(modules).double()
    wide_x = x.detach().double().requires_grad_()
    errors = differences(
        lambda: mixer.normed_mixer(x, first, ours, torch.float32 if EXACT else torch.float16, residual=residual),
        lambda: residual * wide_x + wide[1](wide[0](wide_x)),
        [x, *modules.parameters()],
        [wide_x, *wide.parameters()],
    )
    assert max(errors) < (1e-5 if EXACT else 1e-2)


@pytest.mark.parametrize("norm", [nn.LayerNorm, InstanceNorm])
def test_mixer_in_half_precision(norm: type[nn.Module]) -> None:
    torch.manual_seed(0)
    ours, first = build_mixer("3D, cut", 16), build_norm(norm, 16)
    x = torch.randn(1, *GRIDS["3D, cut"][0], 16, device=DEVICE).half().requires_grad_()
    modules = nn.ModuleList([first, ours])
    wide = copy.deepcopy(modules).double()
    wide_x = x.detach().double().requires_grad_()
    errors = differences(
        lambda: mixer.normed_mixer(x, first, ours, torch.float16, residual=True),
        lambda: wide_x + wide[1](wide[0](wide_x)),
        [x, *modules.parameters()],
        [wide_x, *wide.parameters()],
    )
    assert errors[0] < 1e-3
    assert max(errors) < 3e-2  # a hidden number near 0 may fall on the other side of the ReLU


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [*((name, torch.float32, 1e-5) for name in GRIDS), ("3D, cut", torch.float16, 2e-3)],
    ids=str,
)
def test_mix_of_wide_layers(name: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    size, channels = GRIDS[name][0], 40
    x = torch.randn(2, *size, channels, device=DEVICE).relu().to(dtype).requires_grad_()
    wide = x.detach().double().requires_grad_()
    parts = build_mixer(name, channels).families(size)
    errors = differences(
        lambda: triton_families.mix_families(x, parts, 4, 5), lambda: mix_families(wide, parts, 4, 5), [x], [wide]
    )
    assert max(errors) < tolerance


def test_background_gives_zeros_and_finite_gradients() -> None:
    parts = build_mixer("3D, cut", 8).families((8, 10, 4))
    x = torch.zeros(1, 8, 10, 4, 8, device=DEVICE, requires_grad=True)
    y = triton_families.mix_families(x, parts, 4, 5)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert not y.any()
    assert not gradient.any()


@pytest.mark.parametrize("num_iters", [1, 2, 5, 10])
def test_projections_of_matrices_of_any_scale(num_iters: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(40, 5, 20, device=DEVICE) * torch.logspace(-3, 3, 40, device=DEVICE)[:, None, None]
    x[7] = 0
    sums = torch.cat((x @ x.mT, x.sum(-1, keepdim=True)), -1)[None, :, None]
    # Each matrix is a block, and a window of its own.
    grid = window_grid((40,), (1,), axis_shifts((0.0,), 1))
    members = membership(geometry((40,), families(grid, 1)[0]), torch.device(DEVICE))
    _, projections = triton_windows.project_windows(sums.contiguous(), members, num_iters)
    direction = torch.randn_like(projections)
    gradient = triton_windows.project_windows_backward(direction, sums.contiguous(), members, num_iters)

    def plainly(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        given = sums.to(dtype).requires_grad_()
        result = leading_projection(given[..., :-1], given[..., -1:], num_iters)
        return result, torch.autograd.grad(result, given, direction.to(dtype))[0]

    expected, expected_gradient = plainly(torch.float64)
    torch.testing.assert_close(projections.double(), expected, rtol=0, atol=1e-6)
    # The gradient all but vanishes where the iterates have converged, so it is compared with float32's own error.
    largest = expected_gradient.abs().amax((-2, -1), keepdim=True).clamp_min(1e-30)
    error = ((gradient - expected_gradient).abs() / largest).max()
    assert error < 20 * ((plainly(torch.float32)[1] - expected_gradient).abs() / largest).max() + 1e-5
    assert not gradient[0, 7].any()


def test_moments_with_a_large_mean() -> None:
    torch.manual_seed(0)
    x = (30 + 0.1 * torch.randn(2, 5, 7, 9, 20, device=DEVICE)).requires_grad_()
    wide = x.detach().double().requires_grad_()
    for index in (0, 1):

        def plainly(index: int = index) -> Tensor:
            return torch.var_mean(wide.flatten(1, -2), 1, correction=0)[1 - index]

        errors = differences(lambda index=index: norms.channel_moments(x)[index], plainly, [x], [wide])
        assert max(errors) < 1e-4


def test_moments_of_a_constant_with_an_outlying_middle() -> None:
    x = torch.full((1, 3, 3, 3, 16), 1.1, device=DEVICE)
    x[0, 1, 1, 1] = -300
    mean, variance = norms.channel_moments(x)
    expected = torch.var_mean(x.double().flatten(1, -2), 1, correction=0)
    torch.testing.assert_close(mean.double(), expected[1], rtol=1e-5, atol=0)
    torch.testing.assert_close(variance.double(), expected[0], rtol=1e-5, atol=0)
    x[0, 1, 1, 1] = 1.1
    assert (norms.channel_moments(x)[1] >= 0).all()


def test_compiled_kernels_give_the_same_numbers() -> None:
    """The shapes and types that the operators announce are right, and the graph has no breaks."""
    torch.manual_seed(0)
    size, channels = GRIDS["two families, cut"][0], 8
    ours, norm = build_mixer("two families, cut", channels), build_norm(InstanceNorm, channels)
    expand, contract = nn.Linear(channels, 16).to(DEVICE), nn.Linear(16, channels).to(DEVICE)
    weight = torch.randn(channels, 1, 3, 3, device=DEVICE, requires_grad=True)

    def run(x: Tensor) -> Tensor:
        x = depthwise.depthwise_conv(x, weight, expand.bias[:channels])
        x = mixer.normed_mixer(x, norm, ours, torch.float16, residual=True)
        x = x + mixer.normed_mixer(x, norm, ours, torch.float16, residual=False)
        x = mlp.residual_mlp(x, norm, expand, contract, torch.float16)
        return triton_families.mix_families(x.relu(), ours.families(size), 4, 5)

    x = torch.randn(1, *size, channels, device=DEVICE, requires_grad=True)
    inputs = [x, weight, *norm.parameters(), *ours.parameters(), *expand.parameters()]
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert max(differences(lambda: compiled(x), lambda: run(x), inputs, inputs)) < 1e-5


@pytest.mark.parametrize(
    "form",
    [{}, {"norm": "layer", "depthwise": "none", "border": "cyclic", "mlp_ratio": 4}],
    ids=["default", "published"],
)
def test_a_network_with_kernels_equals_one_without(form: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels compute in float32 here; the functions that choose them are replaced."""
    torch.manual_seed(0)
    network = Factorizer(
        2,
        3,
        features_per_stage=[16, 72],
        strides=[[1, 1], [2, 2]],
        nmf_stages=[True, True],
        deep_supervision=True,
        **form,
    )
    network = network.to(DEVICE)
    wide = copy.deepcopy(network).double()
    x = torch.randn(1, 2, 12, 10, device=DEVICE, requires_grad=True)
    wide_x = x.detach().double().requires_grad_()

    def outputs(net: Factorizer, image: Tensor) -> Tensor:
        return torch.cat([y.flatten() for y in net(image)])

    def with_kernels() -> Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(dispatch, "kernel_precision", lambda x: torch.float32)
            patch.setattr(dispatch, "can_use_kernels", lambda x: True)
            expected = [(mlp, "residual_mlp"), (mixer, "normed_mixer"), (triton_families, "mix_families")]
            if not form:
                expected += [(depthwise, "depthwise_conv"), (norms, "channel_moments")]
            with contextlib.ExitStack() as stack:
                spies = [
                    stack.enter_context(mock.patch.object(module, name, wraps=getattr(module, name)))
                    for module, name in expected
                ]
                result = outputs(network, x)
            assert all(spy.called for spy in spies)
            return result

    parameters = zip(network.parameters(), wide.parameters(), strict=True)
    pairs = [(x, wide_x), *((p, q) for p, q in parameters if p.requires_grad)]
    errors = differences(with_kernels, lambda: outputs(wide, wide_x), *zip(*pairs, strict=True))
    assert max(errors) < (1e-4 if EXACT else 5e-2)


def test_the_cpu_has_none() -> None:
    x = torch.zeros(1, 4, 4, 8)
    assert not can_use_kernels(x)
    with torch.autocast("cpu"):
        assert kernel_precision(x) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernels_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1, 4, 4, 8, device="cuda")
    assert can_use_kernels(x)
    monkeypatch.setenv(KERNELS_VARIABLE, "0")
    assert not can_use_kernels(x)
