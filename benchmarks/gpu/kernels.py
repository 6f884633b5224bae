"""Each kernel of a training step against the time that its bytes take: ``python -m benchmarks.gpu.kernels``.

One step of a network is recorded under autocast to float16. Each different call of our operators is then repeated on
random tensors of the same sizes. The *floor* of a call is the size of the tensors that it takes and gives, over the
bandwidth of a large copy, which is measured in the same run. Those that move most come first, and each row is written
at once: run again, the command measures only what has no row yet.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.speed.measure import machine_rates
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.network import VARIANTS, build_variant

OPERATORS = "factorizer_nnunet"  # the library of our operators


@dataclass(frozen=True)
class Size:
    """Of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Call:
    """Of an operator: its arguments, with sizes in place of tensors, and the bytes of what it takes and gives."""

    operator: OpOverload[..., Any]
    arguments: tuple[Any, ...]
    num_bytes: int

    @property
    def name(self) -> str:
        """The operator's, without its library."""
        return self.operator.name().partition("::")[2]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first tensor."""
        return next(argument.shape for argument in self.arguments if isinstance(argument, Size))

    @property
    def description(self) -> str:
        """All arguments, by which a row is found again; tensors by size and type."""
        shown = (f"{one.dtype}{list(one.shape)}" if isinstance(one, Size) else str(one) for one in self.arguments)
        return ", ".join(shown).replace("torch.", "")

    def tensors(self, device: str) -> list[Any]:
        """Arguments to call the operator with; tensors have random values from 0 to 1."""
        made: list[Any] = []
        for argument in self.arguments:
            if isinstance(argument, Size):
                made.append(torch.rand(argument.shape, device=device).to(argument.dtype))
            else:
                made.append(list(argument) if isinstance(argument, tuple) else argument)
        return made


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Call] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # noqa: ANN001 - torch's signature
        result = function(*args, **(kwargs or {}))
        if function.namespace == OPERATORS:
            tensors = [leaf for leaf in tree_leaves((args, result)) if isinstance(leaf, Tensor)]
            self.calls[Call(function, tuple(map(_frozen, args)), sum(tensor.nbytes for tensor in tensors))] += 1
        return result


def _frozen(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return Size(tuple(argument.shape), argument.dtype)
    return tuple(argument) if isinstance(argument, list) else argument


def recorded_calls(network: nn.Module, x: Tensor) -> Counter[Call]:
    """Calls of our operators in a forward and backward pass under autocast, and how often each occurs."""
    recorder = _Recorder()
    with recorder:
        with torch.autocast(x.device.type, torch.float16):
            outputs = network(x)
        sum(output.float().square().mean() for output in outputs).backward()
    network.zero_grad(set_to_none=True)
    return recorder.calls


def measure(
    calls: Counter[Call],
    device: str,
    time_ms: Callable[[Callable[[], object]], float],
    known: Sequence[dict[str, Any]] = (),
) -> Iterator[dict[str, Any]]:
    """After each call that ``known`` rows do not have, all rows, the slowest first, as plain JSON values.

    ``time_ms`` times a function.
    """
    bytes_per_s, rows = machine_rates(device)["bytes_per_s"], list(known)
    done = {(row["operator"], row["arguments"]) for row in rows}
    for call, count in sorted(calls.items(), key=lambda item: -item[0].num_bytes * item[1]):
        if (call.name, call.description) in done:
            continue
        arguments = call.tensors(device)
        milliseconds = time_ms(lambda call=call, arguments=arguments: call.operator(*arguments))
        floor = 1000 * call.num_bytes / bytes_per_s
        sizes = {"shape": list(call.shape), "calls": count, "arguments": call.description}
        row = {"operator": call.name, **sizes, "ms": milliseconds, "floor_ms": floor}
        rows = sorted([*rows, row], key=lambda row: -row["ms"] * row["calls"])
        yield {"bytes_per_s": bytes_per_s, "different_calls": len(calls), "rows": rows}


def main(arguments: Sequence[str] | None = None) -> None:
    """Record, measure and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, nargs="+", default=[128, 128, 128], help="default 128 128 128")
    parser.add_argument("--batch", type=int, default=2, help="default 2")
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="default", help="default %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to extend")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.exit("error: the kernels need a CUDA device, and torch can use none here")
    from triton.testing import do_bench  # not available everywhere

    torch.manual_seed(0)
    network = build_variant(options.variant, 4, 4, options.patch, deep_supervision=True).cuda()
    x = torch.randn(options.batch, 4, *options.patch, device="cuda")
    about = {"variant": options.variant, "patch_size": options.patch, "batch_size": options.batch}
    before = read_complete_json(options.output) or {}
    known = before["rows"] if before.items() >= about.items() else []
    for measured in measure(recorded_calls(network, x), "cuda", do_bench, known):
        write_text_atomically(options.output, json.dumps({**about, **measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
