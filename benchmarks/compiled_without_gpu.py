"""What ``torch.compile`` makes for a GPU that this machine does not have: its code, which is neither compiled nor run.

Without a driver, torch cannot differentiate tensors that claim to be on a GPU. So the passes are traced on the CPU, and
their joint graph is moved to the GPU before the compiler divides it into passes and fuses its operators.
"""

from __future__ import annotations

import ast
import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest import mock

import torch
from torch import Tensor, fx
from torch._functorch import config as functorch_config
from torch._inductor import compile_fx, decomposition
from torch._inductor import config as inductor_config
from torch._inductor.graph import GraphLowering
from torch.fx.node import map_aggregate
from torch.utils._pytree import tree_map

_CPU, _GPU = torch.device("cpu"), torch.device("cuda", 0)
# What the compiler asks about a GPU, answered by an H100; those of an H200 are the same.
_PROPERTIES = SimpleNamespace(
    name="NVIDIA H100",
    major=9,
    minor=0,
    multi_processor_count=132,
    regs_per_multiprocessor=2**16,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
)
_GENERATED = "triton_"  # begins the names of the compiler's own kernels
_OURS = "torch.ops.factorizer_nnunet."
_LIBRARY = ("extern_kernels.", "torch.ops.")
_LAUNCHES_NOTHING = {
    "args.clear",
    "assert_alignment",
    "assert_size_stride",
    "assert_size_stride_grouped",
    "assert_tensor_metadata",
    "copy_if_misaligned",  # allocated tensors are aligned
    "empty_strided_cuda",
    "get_raw_stream",
    "reinterpret_tensor",
    "torch.cuda._DeviceGuard",
    "torch.cuda.set_device",
}


@dataclass(frozen=True)
class CompiledPass:
    """The operators of a pass before fusion, Python code that runs it, and the bytes that its kernels read and write.

    A tensor counts once for each kernel, operator of ours and call of a library.
    """

    graph: fx.Graph
    code: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Calls:
    """Of the code of a pass, by what is called.

    Attributes:
        generated: kernels that the compiler wrote.
        libraries: operators of PyTorch that it left alone: matrix products and convolutions, mostly.
        kernels: kernels of ours.
        operators: operators of ours.
    """

    generated: int = 0
    libraries: int = 0
    kernels: int = 0
    operators: int = 0


class Traced(Exception):  # noqa: N818 - not an error
    """Ends the call of a compiled function, whose passes have been compiled by then."""

    @classmethod
    def stop(cls, *_: object) -> NoReturn:
        """In place of a compiled pass."""
        raise cls


def compiled_passes(function: Callable[..., object], *inputs: Tensor) -> list[CompiledPass]:
    """A function of tensors on the CPU, compiled for a GPU: its forward pass and, with gradients, its backward pass.

    Needs a stand-in for Triton's driver; see ``without_gpu``.
    """
    found: list[CompiledPass] = []
    joint_graph_passes = compile_fx._recursive_joint_graph_passes

    def passes_then_move(module: fx.GraphModule, *args: Any, **options: Any) -> fx.GraphModule:
        module = joint_graph_passes(module, *args, **options)  # on the CPU: they compute constants
        _move_to_gpu(module.graph)
        return module

    def keep_code(lowering: GraphLowering) -> SimpleNamespace:
        code, _ = lowering.codegen()
        num_bytes = sum(node.get_read_write_buffers_sizes() for node in lowering.scheduler.nodes)
        found.append(CompiledPass(lowering.graph, code.value, num_bytes))
        return SimpleNamespace(__file__="", call=None)

    def compile_pass(module: fx.GraphModule, _: object, **options: Any) -> Any:
        inputs = [node.meta["val"] for node in module.graph.find_nodes(op="placeholder")]
        with _gpu_for_torch(), mock.patch.object(GraphLowering, "compile_to_module", keep_code):
            compile_fx.compile_fx_inner(module, inputs, **options)
        return Traced.stop

    torch._dynamo.reset()
    backend = functools.partial(compile_fx.compile_fx, inner_compile=compile_pass)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(compile_fx, "_recursive_joint_graph_passes", passes_then_move))
        stack.enter_context(mock.patch.object(decomposition, "is_gpu", lambda _: True))  # of convolutions' gradients
        stack.enter_context(inductor_config.patch(fx_graph_cache=False, compile_threads=1))
        stack.enter_context(functorch_config.patch(enable_autograd_cache=False, force_non_lazy_backward_lowering=True))
        stack.enter_context(contextlib.suppress(Traced))
        torch.compile(function, backend=backend, fullgraph=True)(*inputs)
    return found


def count_calls(code: str) -> Calls:
    """Of the code of a compiled pass.

    Raises:
        ValueError: the code calls something that is not known to launch kernels or not to.
    """
    functions = [
        node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef) and node.name == "call"
    ]
    (function,) = functions
    counts = dict.fromkeys(Calls.__dataclass_fields__, 0)
    for node in ast.walk(function):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name.endswith(".run"):
            counts["generated" if name.startswith(_GENERATED) else "kernels"] += 1
        elif name.startswith(_OURS):
            counts["operators"] += 1
        elif name.startswith(_LIBRARY):
            counts["libraries"] += 1
        elif name not in _LAUNCHES_NOTHING:
            raise ValueError(f"unknown call in the code that torch.compile made: {ast.unparse(node)}")
    return Calls(**counts)


def _move_to_gpu(graph: fx.Graph) -> None:
    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            with value.fake_mode:  # type: ignore[attr-defined]
                return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=_GPU)
        return _GPU if isinstance(value, torch.device) and value == _CPU else value

    for node in graph.nodes:
        node.args, node.kwargs = map_aggregate(node.args, moved), map_aggregate(node.kwargs, moved)
        if "val" in node.meta:
            node.meta["val"] = tree_map(moved, node.meta["val"])


@contextlib.contextmanager
def _gpu_for_torch() -> Iterator[None]:
    """Within the block, torch believes in a GPU, as far as its compiler asks."""
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "_lazy_init": lambda: None,
        "_get_device_properties": lambda _: _PROPERTIES,
        "_exchange_device": lambda device: device,
        "_maybe_exchange_device": lambda device: device,
        "get_rng_state": lambda *_: torch.empty(0, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
    }
    with (
        mock.patch.multiple(torch.cuda, create=True, **answers),
        mock.patch("torch._inductor.scheduler.has_triton", lambda: True),  # torch remembers that there was no GPU
    ):
        yield
