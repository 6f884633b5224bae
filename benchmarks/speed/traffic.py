"""Bytes that the operations of a network move from and to memory, by layer, against those that must move.

Operands that lie in a storage no larger than a cache are taken to stay in it: what the slabs and slices of
``network.ops.mixer.cpu`` and ``mlp.cpu`` pass on to each other costs no memory traffic. A part of a volume that
two operations in a row work on counts twice, though the second finds it in the cache.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations that only give another view of the same memory, or allocate without writing.
_FREE = (
    "view",
    "reshape",
    "permute",
    "transpose",
    "expand",
    "slice",
    "select",
    "split",
    "unsqueeze",
    "squeeze",
    "detach",
    "alias",
    "t.default",
    "as_strided",
    "diagonal",
    "unbind",
    "empty",
    "unfold",
)


_ONLY_WRITING = ("copy_", "zero_", "fill_")
_CACHE_BYTES = 2**23


@dataclass
class Traffic:
    """Of one layer in one forward pass, in bytes."""

    moved: int = 0  # inputs read and outputs written by each of its operations, unless they stay in a cache
    needed: int = 0  # its input read and its output written once


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.layers: list[str] = []
        self.traffic: dict[str, Traffic] = defaultdict(Traffic)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # noqa: ANN001 - torch's signature
        result = function(*args, **(kwargs or {}))
        name = str(function).removeprefix("aten.")
        if self.layers and not name.startswith(_FREE):
            operands = (args[1:], result) if name.startswith(_ONLY_WRITING) else (args, result)
            self.traffic[self.layers[-1]].moved += sum(_memory_bytes(t) for t in tree_leaves(operands))
        return result


def _memory_bytes(operand: object) -> int:
    if not isinstance(operand, Tensor) or operand.untyped_storage().nbytes() <= _CACHE_BYTES:
        return 0
    return min(operand.numel() * operand.element_size(), operand.untyped_storage().nbytes())


def layer_traffic(network: nn.Module, layers: dict[str, str], x: Tensor) -> dict[str, Traffic]:
    """Traffic of a forward pass, summed over the modules of each kind.

    Args:
        network: whose modules are watched.
        layers: name of a module class and what to call such layers; the innermost one counts.
        x: input.
    """
    counter, handles = _Counter(), []

    def entering(module: nn.Module, inputs: tuple) -> None:
        counter.layers.append(layers[type(module).__name__])

    def leaving(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        name = counter.layers.pop()
        counter.traffic[name].needed += sum(t.nbytes for t in tree_leaves((inputs, output)) if isinstance(t, Tensor))

    for module in network.modules():
        if type(module).__name__ in layers:
            handles += [module.register_forward_pre_hook(entering), module.register_forward_hook(leaving)]
    try:
        with torch.no_grad(), counter:
            network.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
    return dict(counter.traffic)
