"""Kernels that ``torch.compile`` launches itself: the numbers of the graphs, and what is in them, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
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
from factorizer_nnunet.network.ops.mixer.block_geometry import geometry, membership, recorded_membership

pytest.importorskip("triton", reason="Triton is not available for this platform")

from torch._higher_order_ops import triton_kernel_wrap
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from factorizer_nnunet.network.ops.depthwise import triton as depthwise
from factorizer_nnunet.network.ops.mixer import triton as mixer
from factorizer_nnunet.network.ops.mixer import triton_families
from factorizer_nnunet.network.ops.mlp import triton as mlp
from factorizer_nnunet.network.ops.norm import triton as norms

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
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
# Kernels of the compiler, calls of libraries, our kernels, PyTorch within our operators; forward and, if any, backward.
KNOWN_LAUNCHES = {
    "two pointwise operators": [[1, 0, 0, 0]],
    "a product": [[0, 1, 0, 0]],
    "a product and its gradient": [[0, 1, 0, 0], [0, 1, 0, 0]],
    "a sum of a product of a sum": [[2, 1, 0, 0]],
    "one of our operators": [[0, 0, 2, 0]],
}


# Tensors of 8 × 16 and 16 × 16 numbers of 4 bytes; a volume of 2 × 16 × 16, and two moments of each case and channel.
_ROWS, _WEIGHT, _VOLUME, _MOMENTS = 512, 1024, 2048, 256
KNOWN_BYTES = {
    "two pointwise operators": [2 * _ROWS],
    "a product": [2 * _ROWS + _WEIGHT],
    "a product and its gradient": [2 * _ROWS + _WEIGHT, 2 * _ROWS + _WEIGHT],
    "a sum of a product of a sum": [2 * _ROWS + 2 * _ROWS + _WEIGHT + _ROWS + 4],
    "one of our operators": [_VOLUME + _MOMENTS],
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
    """All operations, forward and backward, with two families of shifts."""
    ours, norm, expand, contract, weight, x = built()

    def run(x: Tensor) -> Tensor:
        x = depthwise.depthwise_conv(x, weight, expand.bias[:8])
        x = mixer.normed_mixer(x, norm, ours, torch.float32, residual=True)
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


@pytest.mark.parametrize("border", ["cut", "cyclic"])
@pytest.mark.parametrize(
    ("size", "window", "shifts"),
    [
        ((8, 10, 4), (8, 8, 8), (0.0, 0.5)),
        ((9, 8), (8, 8), (0.0, 0.25, 0.5, 0.75)),
        ((7, 12, 5), (3, 4, 5), (0.0, 0.3, 0.7)),
        ((3, 5, 4), (None, None, None), (0.0,)),
    ],
)
def test_recorded_tables_have_the_same_blocks_in_the_same_windows(
    size: tuple[int, ...], window: tuple, shifts: tuple, border: str
) -> None:
    settings = {"head_dim": 4, "window_size": window, "shifts": shifts, "border": border, "nmf": NMFSettings()}
    for family in NMFMixer(8, **settings).families(size):
        blocks = geometry(size, family)
        expected, recorded = membership(blocks, CPU), recorded_membership(blocks, CPU)
        assert torch.equal(recorded.windows, expected.windows)
        assert recorded.blocks.dtype == expected.blocks.dtype
        for ours, theirs in zip(recorded.blocks.tolist(), expected.blocks.tolist(), strict=True):
            assert sorted(block for block in ours if block >= 0) == [block for block in theirs if block >= 0]


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


@pytest.mark.slow  # another process, whose kernels are not interpreted
def test_the_graphs_of_a_network_have_its_launches_and_copy_nothing() -> None:
    line = [sys.executable, str(Path(__file__).with_name("inlined_graphs.py"))]
    env = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # Torch finds out what a kernel writes; it would copy all arguments if it could not.
    assert found["written"] == WRITES
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found["page"].splitlines() if line[:1] == "|"]
    before, after = (
        {(step, which): list(map(int, numbers)) for step, which, *numbers in rows} for rows in (cells[2:6], cells[8:])
    )
    for which in ("forward", "backward"):
        operators, ours, from_python, compiled = before["plain, fused", which]
        assert min(operators, ours) > 5 and from_python > ours and compiled == 0
        assert before["inlined", which][1:] == [0, 0, from_python]
        # Fusion changes neither how often our kernels are launched nor the matrix products; inlined, it takes the rest.
        plain, inlined = after["plain, fused", which], after["inlined", which]
        assert plain[1:3] == inlined[1:3] and plain[2] == from_python
        assert 0 < plain[0] < operators and plain[3] > 0 == inlined[3]
        for *numbers, total in (plain, inlined):
            assert sum(numbers) == total
    totals = [sum(after[step, which][-1] for which in ("forward", "backward")) for step in ("plain, fused", "inlined")]
    assert "come to {} launches with our operators and to {} with".format(*totals) in found["page"]
    assert found["known"] == KNOWN_LAUNCHES | {f"{name}, inlined": passes for name, passes in KNOWN_LAUNCHES.items()}
    assert found["bytes"] == KNOWN_BYTES
    resources = [(one["kernel"], one["target"]) for one in found["resources"]]
    kernels = ("norm.triton: moments_from_sums", "norm.triton: sum_differences")
    assert resources == [(kernel, target) for kernel in kernels for target in (80, 90)]
    assert all(16 <= one["registers"] <= 255 and one["spilled_bytes"] == 0 for one in found["resources"])


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
