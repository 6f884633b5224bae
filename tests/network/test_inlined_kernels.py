"""Kernels that ``torch.compile`` launches itself: the numbers of the graphs, and what is in them, without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.nmf import NMFSettings
from factorizer_nnunet.network.norms import InstanceNorm
from factorizer_nnunet.network.ops.dispatch import inlined_kernels
from factorizer_nnunet.network.ops.launch import is_inlining

pytest.importorskip("triton", reason="Triton is not available for this platform")

from torch._higher_order_ops import triton_kernel_wrap
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from factorizer_nnunet.network.ops.depthwise import triton as depthwise
from factorizer_nnunet.network.ops.mixer import triton as mixer
from factorizer_nnunet.network.ops.mixer import triton_families
from factorizer_nnunet.network.ops.mlp import triton as mlp
from factorizer_nnunet.network.ops.norm import triton as norms

# What each kernel writes; the graph copies any other tensor that it seems to write.
WRITES = {
    "_convolve": ["y_ptr"],
    "_weight_gradient": ["sums_ptr"],
    "_sum_differences": ["sums_ptr"],
    "_moments_from_sums": ["mean_ptr", "variance_ptr"],
    "forward": ["y_ptr"],
    "input_gradient": ["grad_x_ptr", "sums_ptr"],
    "weight_gradient": ["sums_ptr"],
    "sum_blocks": ["sums_ptr"],
    "apply_projections": ["y_ptr"],
    "projection_gradient": ["grad_projections_ptr", "grad_x_ptr", "partial_ptr"],
    "sums_gradient": ["grad_x_ptr", "partial_ptr"],
    "_project": ["projections_ptr", "window_sums_ptr"],
    "_sums_gradient": ["grad_hidden_ptr", "grad_sums_ptr"],  # two kernels of this name
    "_sum_blocks": ["sums_ptr"],
    "_apply_projections": ["y_ptr"],
    "_projection_gradient": ["grad_hidden_ptr", "grad_projections_ptr"],
}


class InterpretedKernel(JITFunction):
    """A kernel that the compiler can record, and that is interpreted when its graph runs."""

    @property
    def cache_key(self) -> str:
        return f"{self.fn.__module__}.{self.fn.__name__}"

    def run(self, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        InterpretedFunction(self.fn).run(*args, grid=grid, warmup=warmup, **options)


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Lets graphs with kernels run on the CPU; the names of the kernels that were recorded."""
    if torch.cuda.is_available():
        pytest.skip("for Triton's interpreter")
    recorded: list[str] = []

    def wrapped(kernel: InterpretedFunction) -> Any:
        recorded.append(kernel.__name__)
        return triton_kernel_wrap.TraceableTritonKernelWrapper(InterpretedKernel(kernel.fn), None, None)

    def written(kernel_idx: int, constants: int, kwargs: dict[str, Any], _: object) -> list[str]:
        kernel = triton_kernel_wrap.kernel_side_table.get_kernel(kernel_idx)
        kernel = kernel if isinstance(kernel, JITFunction) else kernel.fn
        return [name for name in WRITES[kernel.fn.__name__] if name in kwargs]

    monkeypatch.setattr(torch.library, "wrap_triton", wrapped)
    monkeypatch.setattr(triton_kernel_wrap, "get_mutated_tensors", written)
    torch._dynamo.reset()
    yield recorded
    torch._dynamo.reset()


def outputs_and_gradients(function: Any, inputs: list[Tensor]) -> list[Tensor]:
    y = function(*inputs[:1])
    torch.manual_seed(1)
    return [y.detach(), *torch.autograd.grad(y, inputs, torch.randn_like(y))]


def built(seed: int = 0) -> tuple[nn.Module, nn.Module, nn.Linear, nn.Linear, Tensor, Tensor]:
    torch.manual_seed(seed)
    settings = {"head_dim": 4, "window_size": (4, 4), "shifts": (0.0, 0.25, 0.5, 0.75), "border": "cut"}
    ours, norm = NMFMixer(8, **settings, nmf=NMFSettings()), InstanceNorm(8)
    nn.init.normal_(norm.weight)
    weight = torch.randn(8, 1, 3, 3, requires_grad=True)
    return ours, norm, nn.Linear(8, 16), nn.Linear(16, 8), weight, torch.randn(1, 5, 4, 8, requires_grad=True)


def test_compiled_graphs_with_kernels_give_the_numbers_of_the_operators(interpreted: list[str]) -> None:
    """All operations, forward and backward; tables of two families of shifts are constants of the graph."""
    ours, norm, expand, contract, weight, x = built()

    def run(x: Tensor) -> Tensor:
        x = depthwise.depthwise_conv(x, weight, expand.bias[:8])
        x = mixer.residual_mixer(x, norm, ours, torch.float32)
        x = mlp.residual_mlp(x, norm, expand, contract, torch.float32)
        x = norms.instance_norm(x, norm.weight, norm.bias, 1e-5)
        return triton_families.mix_families(x.relu(), ours.families((5, 4)), 4, 5)

    inputs = [x, weight, *norm.parameters(), *ours.parameters(), *expand.parameters(), *contract.parameters()]
    expected = outputs_and_gradients(run, inputs)
    assert not interpreted
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    with inlined_kernels():
        results = outputs_and_gradients(compiled, inputs)
    assert set(interpreted) == set(WRITES)
    for ours_, theirs in zip(results, expected, strict=True):
        torch.testing.assert_close(ours_, theirs, rtol=1e-4, atol=1e-5)


def test_the_same_function_is_compiled_once_for_each_way(interpreted: list[str]) -> None:
    *_, weight, x = built()
    bias = torch.zeros(8)
    compiled = torch.compile(lambda x: depthwise.depthwise_conv(x, weight, bias), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        expected = compiled(x)
        assert not interpreted
        for _ in range(2):
            with inlined_kernels():
                assert torch.equal(compiled(x), expected)
            once = len(interpreted)
            assert torch.equal(compiled(x), expected)
            assert len(interpreted) == once > 0
    assert not is_inlining()


def test_outside_the_block_nothing_changes() -> None:
    """Eager operators are the opaque ones, also in a block."""
    assert not is_inlining()
    network = Factorizer(1, 2, features_per_stage=[8, 16], strides=[[1, 1], [2, 2]])
    x = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        expected = network(x)
        with inlined_kernels():
            assert is_inlining()
            torch.testing.assert_close(network(x), expected, rtol=0, atol=0)
