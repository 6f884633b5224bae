"""How many operators a compiled training step calls, counted without a GPU: ``python -m benchmarks.step_operators``.

Both passes of the default network are traced as ``torch.compile`` traces them on a GPU, with our kernels, under
autocast to float16; nothing is computed. Counted are the operators before the compiler fuses those of PyTorch, and the
Triton kernels that each of ours launches from Python; then what the code launches that the compiler generates for an
H100. Both are counted again with ``nnUNet_factorizer_step=inlined``, where the compiled code launches our kernels. The
optimizer's part is counted as it is called, with and without ``nnUNet_factorizer_step=fused``. Writes
step_operators.md.
"""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any
from unittest import mock

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch import config as functorch_config
from torch.fx.node import map_arg
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from triton.runtime.jit import JITFunction

from benchmarks.compiled_without_gpu import CompiledPass, Traced, compiled_passes, count_calls
from benchmarks.output_paths import output_folder_or_none
from benchmarks.without_gpu import no_gpu
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.network import VARIANTS, build_variant
from factorizer_nnunet.network.ops import dispatch, launch
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
_FREE = (  # launch nothing: another view, or new memory
    *("view", "reshape", "permute", "transpose", "expand", "slice", "select", "squeeze", "unsqueeze", "split", "t."),
    *("empty", "new_empty"),
)
# Lets a network on the CPU choose the kernels.
AS_ON_A_GPU: dict[str, Callable[[Tensor], object]] = {
    "kernel_precision": lambda x: torch.float16,
    "can_use_kernels": lambda x: True,
    "trains_on_cpu": lambda x: False,
    "_is_eager_on_cpu": lambda x: False,
}
INLINED_LAUNCH = "triton_kernel_wrapper_functional"  # torch's name for it in a graph
CLASSES = 4  # of the counted network and loss
NNUNETS_NORM = 12.0  # to which nnU-Net's step clips gradients


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Of a pass: operators of PyTorch and of ours, and launches of our kernels, by operators or by compiled code."""

    others: int
    ours: int
    launches_from_python: int
    launches: int


@dataclass(frozen=True, kw_only=True)
class Launches:
    """Of a compiled pass; a call of a library is counted as one.

    Attributes:
        generated: kernels that the compiler wrote.
        libraries: matrix products, convolutions and other operators that it left to PyTorch.
        ours: launches of our kernels.
        within: operators of PyTorch that our operators call between these.
    """

    generated: int
    libraries: int
    ours: int
    within: int

    @property
    def total(self) -> int:
        """Launches in all."""
        return self.generated + self.libraries + self.ours + self.within


@contextlib.contextmanager
def as_on_a_gpu(inlined: bool) -> Iterator[None]:
    """Within the block, a network on the CPU is compiled with kernels, called through operators or ``inlined``."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(no_gpu())  # the compiler asks Triton what a kernel writes
        if inlined:
            stack.enter_context(dispatch.inlined_kernels())
        stack.enter_context(mock.patch.multiple(dispatch, **AS_ON_A_GPU))
        # That of a GPU casts x of addcmul, too; tried by hand, this changes no number after fusion.
        stack.enter_context(torch.autocast("cpu", torch.float16))
        yield


def graphs_of_passes(network: nn.Module, x: Tensor, inlined: bool) -> tuple[fx.Graph, fx.Graph]:
    """What ``torch.compile`` records of the forward and of the backward pass."""
    found: list[fx.Graph] = []

    def compiler(graph: fx.GraphModule, _: Sequence[Tensor]) -> Callable[..., list[Any]]:
        found.append(graph.graph)
        return Traced.stop

    torch._dynamo.reset()
    compiled = torch.compile(network, backend=aot_autograd(fw_compiler=compiler, bw_compiler=compiler), fullgraph=True)
    both_at_once = functorch_config.patch(force_non_lazy_backward_lowering=True)
    with as_on_a_gpu(inlined), both_at_once, contextlib.suppress(Traced):
        compiled(x)
    forward, backward = found
    return forward, backward


def count(graph: fx.Graph) -> Counts:
    """Its operators, without those that launch nothing, and its launches of our kernels."""
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


def launches_of_passes(network: nn.Module, x: Tensor, inlined: bool) -> list[Launches]:
    """What the forward and the backward pass launch, as compiled for a GPU."""
    with as_on_a_gpu(inlined):
        return [count_launches(one) for one in compiled_passes(network, x)]


def count_launches(compiled: CompiledPass) -> Launches:
    """Of the code that the compiler generated, and of our operators that it calls."""
    calls = count_calls(compiled.code)
    return Launches(
        generated=calls.generated,
        libraries=calls.libraries,
        ours=calls.kernels + count(compiled.graph).launches_from_python,
        within=operators_within_ours(compiled.graph),
    )


def operators_within_ours(graph: fx.Graph) -> int:
    """Operators of PyTorch that our operators call when the graph runs, such as sums over programs."""
    functions = {f"{one._opaque}": one._function for one in launch._OPERATORS}
    total = 0
    with mock.patch.object(JITFunction, "run", lambda *_, **__: None):
        for node in graph.nodes:
            if str(node.target) in functions:
                arguments = map_arg(node.args, lambda argument: tree_map(_without_data, argument.meta["val"]))
                function = functions[str(node.target)]
                function(*arguments)  # fills the cache of tables of windows
                with Called() as called:
                    function(*arguments)
                total += called.count
    return total


def _without_data(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


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


def loss_operators(classes: int, outputs: int) -> int:
    """Operators of nnU-Net's loss with deep supervision, which is not compiled, in both passes."""
    parts = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DeepSupervisionWrapper(
        DC_and_CE_loss(parts, {}, dice_class=MemoryEfficientSoftDiceLoss), [1 / 2**scale for scale in range(outputs)]
    )
    logits = [torch.zeros(1, classes, 4, 4, 4, requires_grad=True) for _ in range(outputs)]
    with Called() as called:
        loss(logits, [torch.zeros(1, 1, 4, 4, 4) for _ in range(outputs)]).backward()
    return called.count


def report(network: nn.Module, name: str, x: Tensor) -> str:
    """The page about a network, called ``name``, and an input."""
    before = [["step", "pass", "operators of PyTorch", "of ours", "kernels launched by these", "by compiled code"]]
    after = [["step", "pass", "kernels of the compiler", "libraries", "our kernels", "PyTorch within ours", "in all"]]
    totals: list[int] = []
    for step, inlined in (("plain, fused", False), ("inlined", True)):
        for which, graph in zip(("forward", "backward"), graphs_of_passes(network, x, inlined), strict=True):
            before.append([step, which, *map(str, astuple(count(graph)))])
        launched = launches_of_passes(network, x, inlined)
        for which, one in zip(("forward", "backward"), launched, strict=True):
            after.append([step, which, *map(str, (*astuple(one), one.total))])
        totals.append(sum(one.total for one in launched))
    plain, fused = (optimizer_operators(network, fused) for fused in (False, True))
    size, outputs = "×".join(map(str, x.shape[2:])), len(network.decoder.stages)
    return f"""# Operators of a training step

Written by `python -m benchmarks.step_operators` (see `--help`) without a GPU: network {name}, patch {size}, batch
{len(x)}, torch {torch.__version__}.

## Before the compiler fuses

Operators that only give another view or allocate memory are not counted. Ours are called through Python, unless
`nnUNet_factorizer_step=graphs` records a pass as one CUDA graph. With `inlined`, the compiled code launches our
kernels, too; what our operators did besides, such as sums over programs and the tables of windows, becomes operators
that the compiler can fuse, and many of them are equal.

{markdown_table(before, right=True)}

## Launches after fusion

The passes were traced on the CPU. From there on, the compiler, Inductor, worked as for an H100, but measured nothing;
its code was read and not run. Counted are kernels that the compiler wrote; calls of libraries, such as matrix
products and convolutions, each as one, though some launch several kernels; launches of our kernels, by our operators or
by the compiled code; and operators of PyTorch that our operators call from Python.

{markdown_table(after, right=True)}

Both passes together come to {totals[0]} launches with our operators and to {totals[1]} with `inlined`.

## The loss

nnU-Net's loss at {outputs} scales is not compiled: it calls {loss_operators(CLASSES, outputs)} operators in both
passes.

## From the gradients to the new weights

Clipping and AdamW call {plain} operators in nnU-Net's step and {fused} with `nnUNet_factorizer_step=fused`. AdamW
reads its counters of steps, which are on the CPU, twice for each of the {len(list(network.parameters()))} parameters
unless it is fused.

What all that is worth in time has **not been measured on a GPU yet**.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Count and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="default", help="default %(default)s")
    # Nothing is computed, so this takes no more memory than a small one; long sums are two kernels, short ones one.
    parser.add_argument("--patch", type=int, nargs="+", default=[128, 128, 128], help="default 128 128 128")
    parser.add_argument("--batch", type=int, default=2, help="default %(default)s")
    parser.add_argument("--docs", type=output_folder_or_none, default="docs/measured", help="for the page; empty: none")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    network = build_variant(options.variant, 4, CLASSES, options.patch, deep_supervision=True)
    text = report(network, options.variant, torch.zeros(options.batch, 4, *options.patch))
    print(text)
    if options.docs:
        write_text_atomically(options.docs / "step_operators.md", text)


if __name__ == "__main__":
    main()
