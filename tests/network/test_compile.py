"""The network is one graph to torch.compile, which nnU-Net uses on GPUs by default."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch

from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.ops import dispatch

HAS_COMPILER = shutil.which("g++") and Path(sysconfig.get_path("include"), "Python.h").exists()


def check_compiled(network: Factorizer, backend: str) -> None:
    """Output and gradients of the compiled network are those of the eager one."""
    torch._dynamo.reset()
    x = torch.randn(1, 1, 12, 10, 8)
    y = torch.compile(network, backend=backend, fullgraph=True)(x)
    y.square().mean().backward()
    gradients = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    expected = network(x)
    expected.square().mean().backward()
    torch.testing.assert_close(y, expected)
    for ours, plain in zip(gradients, (p.grad for p in network.parameters()), strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("own_backward", [True, False], ids=["as on the CPU", "as on a GPU"])
def test_compiles_without_graph_breaks(own_backward: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not own_backward:
        monkeypatch.setattr(dispatch, "trains_on_cpu", lambda x: False)
    torch.manual_seed(0)
    check_compiled(Factorizer(1, 2, features_per_stage=[8, 16], strides=[[1, 1, 1], [2, 2, 2]]), "aot_eager")


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler or no headers of Python")
def test_compiles_to_machine_code() -> None:
    # One block, as all have the same operations, with two heads in a group; compilers take long.
    torch.manual_seed(0)
    blocks = {"n_blocks_per_stage": [1, 0], "n_blocks_per_stage_decoder": [0]}
    check_compiled(Factorizer(1, 2, features_per_stage=[16, 16], strides=[[1, 1, 1], [2, 2, 2]], **blocks), "inductor")
