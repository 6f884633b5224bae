"""For test_inlined_kernels, in a process whose kernels are not interpreted: what it asks about them, as JSON."""

from __future__ import annotations

import dataclasses
import json
from unittest import mock

import torch
from torch import fx
from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table
from triton.runtime.jit import JITFunction

from benchmarks import kernel_resources, step_operators
from benchmarks.compiled_without_gpu import compiled_passes
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.ops.norm import triton as norms


def written_by_kernels(graph: fx.Graph) -> dict[str, list[str]]:
    """By kernel that the graph launches, what torch found that it writes."""
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        if str(node.target) == step_operators.INLINED_LAUNCH:
            kernel = kernel_side_table.get_kernel(node.kwargs["kernel_idx"])
            while not isinstance(kernel, JITFunction):  # a configuration, such as the number of warps
                kernel = kernel.fn
            found.setdefault(kernel.fn.__name__, []).extend(node.kwargs["tensors_to_clone"])
    return found


def launches_of_known_graphs() -> tuple[dict[str, list[tuple[int, ...]]], dict[str, list[int]]]:
    """By name, of each pass: kernels of the compiler, calls of libraries, our kernels, PyTorch within our operators.

    And the bytes that they read and write, not inlined.
    """
    x, weight = torch.zeros(8, 16), torch.zeros(16, 16)
    volume, parameter = torch.zeros(2, 4, 4, 16), torch.zeros(16, 16, requires_grad=True)
    functions = {
        "two pointwise operators": (lambda x: (2 * x).relu(), x),
        "a product": (torch.matmul, x, weight),
        "a product and its gradient": (torch.matmul, x, parameter),
        "a sum of a product of a sum": (lambda x, weight: ((x + 1) @ weight).sum(), x, weight),
        "one of our operators": (norms.channel_moments, volume),
    }
    found, num_bytes = {}, {}
    for inlined in (False, True):
        with step_operators.as_on_a_gpu(inlined), torch.autocast("cpu", enabled=False):
            for name, (function, *inputs) in functions.items():
                passes = compiled_passes(function, *inputs)
                launches = [dataclasses.astuple(step_operators.count_launches(one)) for one in passes]
                found[f"{name}, inlined" if inlined else name] = launches
                if not inlined:
                    num_bytes[name] = [one.num_bytes for one in passes]
    return found, num_bytes


def main() -> None:
    torch.manual_seed(0)
    sizes = {"features_per_stage": [16, 72], "strides": [[1, 1], [2, 2]], "nmf_stages": [True, True]}
    network = Factorizer(2, 3, **sizes, deep_supervision=True)
    with mock.patch.object(step_operators, "count", wraps=step_operators.count) as counted:
        page = step_operators.report(network, "small", torch.randn(1, 2, 8, 8))
    graphs = [call.args[0] for call in counted.call_args_list]
    written: dict[str, list[str]] = {}
    for graph in graphs:
        for kernel, names in written_by_kernels(graph).items():
            written[kernel] = sorted({*written.get(kernel, []), *names})
    with kernel_resources.compiled_instead_of_launched([80, 90]) as compiled:
        norms.channel_moments(torch.zeros(1, 4, 4, 16))
    resources = [dataclasses.asdict(one) for one in kernel_resources.resources(compiled)]
    known, num_bytes = launches_of_known_graphs()
    found = {"page": page, "written": written, "resources": resources, "known": known, "bytes": num_bytes}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
