"""The network is one graph to torch.compile, which nnU-Net uses on GPUs by default."""

from __future__ import annotations

import pytest
import torch

from factorizer_nnunet.network import Factorizer, layers


@pytest.mark.parametrize("own_backward", [True, False], ids=["as on the CPU", "as on a GPU"])
def test_compiles_without_graph_breaks(own_backward: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not own_backward:
        monkeypatch.setattr(layers, "_has_own_backward", lambda x: False)
    torch._dynamo.reset()
    torch.manual_seed(0)
    net = Factorizer(1, 2, [8, 16], [[1, 1, 1], [2, 2, 2]])
    x = torch.randn(1, 1, 12, 10, 8)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    y = compiled(x)
    y.square().mean().backward()
    gradients = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    expected = net(x)
    expected.square().mean().backward()
    torch.testing.assert_close(y, expected)
    for ours, plain in zip(gradients, (p.grad for p in net.parameters()), strict=True):
        torch.testing.assert_close(ours, plain)
