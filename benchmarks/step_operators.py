"""How many operators a compiled training step calls, counted without a GPU: ``python -m benchmarks.step_operators``.

Both passes of the default network are traced as ``torch.compile`` traces them on a GPU, with our kernels, under
autocast to float16; nothing is computed. Counted are the operators before the compiler fuses those of PyTorch, and the
Triton kernels that each of ours launches from Python; then the same with ``nnUNet_factorizer_step=inlined``, where the
compiled code launches the kernels. The optimizer's part is counted as it is called, with and without
``nnUNet_factorizer_step=fused``. Writes step_operators.md.
"""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.without_gpu import no_gpu
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.network import VARIANTS, build_variant
from factorizer_nnunet.network.ops import dispatch
from factorizer_nnunet.training.trainer import MAX_GRADIENT_NORM, build_optimizer

# Launches of each of our operators, as its module makes them; a test compares them with those of the interpreter.
LAUNCHES = {
    "depthwise": 1,
    "depthwise_backward": 2,
    "channel_moments": 2,
    "residual_mlp": 1,
    "residual_mlp_backward": 2,
    "residual_mixer": 3,
    "residual_mixer_backward": 3,
    "mix_family": 3,
    "mix_family_backward": 3,
}
_FREE = ("view", "reshape", "permute", "transpose", "expand", "slice", "select", "squeeze", "unsqueeze", "split", "t.")
# Lets a network on the CPU choose the kernels.
AS_ON_A_GPU: dict[str, Callable[[Tensor], object]] = {
    "kernel_precision": lambda x: torch.float16,
    "can_use_kernels": lambda x: True,
    "trains_on_cpu": lambda x: False,
    "_is_eager_on_cpu": lambda x: False,
}
INLINED_LAUNCH = "triton_kernel_wrapper_functional"  # torch's name for it in a graph
NNUNETS_NORM = 12.0  # to which nnU-Net's step clips gradients


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Of a pass: operators of PyTorch and of ours, and launches of our kernels, by operators or by compiled code."""

    others: int
    ours: int
    launches_from_python: int
    launches: int


def graphs_of_passes(network: nn.Module, x: Tensor, inlined: bool) -> tuple[fx.Graph, fx.Graph]:
    """What ``torch.compile`` records of the forward and of the backward pass."""
    found: list[fx.Graph] = []

    def compiler(graph: fx.GraphModule, _: Sequence[Tensor]) -> Callable[..., list[Any]]:
        found.append(graph.graph)
        (outputs,) = next(node for node in graph.graph.nodes if node.op == "output").args

        def give_zeros(*_: Tensor) -> list[Any]:
            return [_zeros(node.meta["val"]) if isinstance(node, fx.Node) else node for node in outputs]

        give_zeros._boxed_call = False  # type: ignore[attr-defined]
        return give_zeros

    torch._dynamo.reset()
    compiled = torch.compile(network, backend=aot_autograd(fw_compiler=compiler, bw_compiler=compiler), fullgraph=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(no_gpu())  # the compiler asks Triton what a kernel writes
        if inlined:
            stack.enter_context(dispatch.inlined_kernels())
        stack.enter_context(mock.patch.multiple(dispatch, **AS_ON_A_GPU))
        stack.enter_context(torch.autocast("cpu", torch.float16))
        outputs = compiled(x)
        sum(output.float().sum() for output in outputs).backward()
    forward, backward = found
    return forward, backward


def count(graph: fx.Graph) -> Counts:
    """Its operators, without those that only give another view, and its launches of our kernels."""
    called = Counter(str(node.target) for node in graph.nodes if node.op == "call_function")
    ours = {name.split(".")[1]: number for name, number in called.items() if name.startswith("factorizer_nnunet.")}
    others = sum(
        number
        for name, number in called.items()
        if name.startswith(("aten.", "prims.")) and not name.partition(".")[2].startswith(_FREE)
    )
    launches = sum(LAUNCHES[name] * number for name, number in ours.items())
    return Counts(
        others=others, ours=sum(ours.values()), launches_from_python=launches, launches=called[INLINED_LAUNCH]
    )


def _zeros(value: Any) -> Any:
    return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, Tensor) else value


class Called(TorchDispatchMode):
    """Counts operators that are called, without those that only give another view.

    Args:
        device: counts only operators with a tensor there, in or out; all if None.
    """

    count = 0

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # noqa: ANN001 - torch's signature
        result = function(*args, **(kwargs or {}))
        there = self._device is None or any(
            isinstance(leaf, Tensor) and leaf.device.type == self._device
            for leaf in tree_leaves((args, kwargs, result))
        )
        self.count += there and not function.name().removeprefix("aten::").startswith(_FREE)
        return result


def optimizer_operators(network: nn.Module, fused: bool) -> int:
    """Operators from the gradients to the new weights, as on a GPU, where torch works on lists of tensors."""
    optimizer = build_optimizer(network, fused=fused)
    for group in optimizer.param_groups:
        group["foreach"] = None if fused else True
    parameters = list(network.parameters())

    def step() -> None:
        for norm in (MAX_GRADIENT_NORM,) if fused else (NNUNETS_NORM, MAX_GRADIENT_NORM):
            nn.utils.clip_grad_norm_(parameters, norm, foreach=True)
        optimizer.step()

    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    step()  # makes the moments
    with Called() as called:
        step()
    return called.count


def report(network: nn.Module, name: str, x: Tensor) -> str:
    """The page about a network, called ``name``, and an input."""
    header = ["step", "pass", "operators of PyTorch", "of ours", "kernels launched by these", "by compiled code"]
    rows = [header]
    for step, inlined in (("plain, fused", False), ("inlined", True)):
        for which, graph in zip(("forward", "backward"), graphs_of_passes(network, x, inlined), strict=True):
            rows.append([step, which, *map(str, astuple(count(graph)))])
    plain, fused = (optimizer_operators(network, fused) for fused in (False, True))
    size = "×".join(map(str, x.shape[2:]))
    return f"""# Operators of a training step

Written by `python -m benchmarks.step_operators` (see `--help`) without a GPU: network {name}, patch {size}, torch
{torch.__version__}. The compiler fuses most of PyTorch's operators into fewer kernels, which it launches itself; ours
are called through Python, unless `nnUNet_factorizer_step=graphs` records a pass as one CUDA graph. With `inlined`, the
compiled code launches our kernels, too; what our operators did besides, such as sums over programs and the tables of
windows, becomes operators that the compiler can fuse, and many of them are equal. How many kernels it makes of them was
not counted.

{markdown_table(rows, right=True)}

From the gradients to the new weights, clipping and AdamW call {plain} operators in nnU-Net's step and {fused} with
`nnUNet_factorizer_step=fused`. AdamW reads its counters of steps, which are on the CPU, twice for each of the
{len(list(network.parameters()))} parameters unless it is fused. What that is worth in time has **not been measured on a
GPU yet**.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Count and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="default", help="default %(default)s")
    # As many stages as 128³, in less memory.
    parser.add_argument("--patch", type=int, nargs="+", default=[64, 64, 64], help="default 64 64 64")
    parser.add_argument("--docs", default="docs/measured", help="folder for the page; empty: none")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    network = build_variant(options.variant, 4, 4, options.patch, deep_supervision=True)
    text = report(network, options.variant, torch.zeros(1, 4, *options.patch))
    print(text)
    if options.docs:
        write_text_atomically(Path(options.docs) / "step_operators.md", text)


if __name__ == "__main__":
    main()
