"""Registers and spills of the Triton kernels, compiled without a GPU: ``python -m benchmarks.kernel_resources``.

A forward and a backward pass of a network run under autocast to float16, with every launch of a kernel replaced by its
compilation for GPUs of compute capability 8.0 (A100), 9.0 (H100, H200) and 10.0 (B200), from Triton to PTX to machine
code. The assembler reports the registers of a thread, and the bytes that did not fit and go through memory. Writes
kernel_resources.json and kernel_resources.md.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor, nn
from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability
from triton.runtime.jit import JITFunction

from benchmarks.output_paths import output_folder_or_none
from benchmarks.step_operators import AS_ON_A_GPU
from benchmarks.without_gpu import no_gpu
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.network import VARIANTS, build_variant
from factorizer_nnunet.network.ops import dispatch

TARGETS = (80, 90, 100)  # compute capabilities, times ten
NAME = "kernel_resources"
_REGISTERS = re.compile(r"Used (\d+) registers")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
Forms = dict[tuple[str, str, int, str], Any]  # by kernel, form, target and hash: what was compiled


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Of a form of a kernel for a target.

    Attributes:
        form: of the arguments that the compiler knows: sizes of tiles, number of warps.
        registers: of a thread.
        spilled_bytes: stored and loaded by a thread because registers were missing.
        shared_bytes: of a program.
    """

    kernel: str
    form: str
    target: int
    registers: int
    spilled_bytes: int
    shared_bytes: int


@contextmanager
def compiled_instead_of_launched(targets: Sequence[int]) -> Iterator[Forms]:
    """Within the block, kernels are compiled where they would be launched."""
    found: Forms = {}
    run = JITFunction.run

    with no_gpu() as stand_in:

        def compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
            values = zip(self.params, args, strict=True)
            known = [f"{parameter.name}={value}" for parameter, value in values if parameter.is_constexpr]
            types = [str(arg.dtype) for arg in args if isinstance(arg, Tensor)]
            form = ", ".join([*known, *(f"{name}={value}" for name, value in options.items())])
            for target in targets:
                stand_in.capability = target
                code = run(self, *args, grid=grid, warmup=True, **options)
                found[_name(self), f"{form}; {' '.join(types)}", target, code.hash] = code

        with mock.patch.object(JITFunction, "run", compile_only):
            yield found


def _name(kernel: JITFunction) -> str:
    """Its module's and its own: several modules have a kernel of the same name."""
    return f"{kernel.fn.__module__.rpartition('.ops.')[2]}: {kernel.fn.__name__.lstrip('_')}"


def assembled(ptx: str, capability: int) -> tuple[int, int]:
    """Registers and spilled bytes of PTX code, as the assembler of Triton's package reports them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx)
        arguments = ["-v", f"--gpu-name={sm_arch_from_capability(capability)}", str(file), "-o", f"{file}.out"]
        command = [get_ptxas(capability).path, *arguments]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    registers = max(map(int, _REGISTERS.findall(said)))
    return registers, sum(int(count) for pair in _SPILLS.findall(said) for count in pair)


def measure(networks: Sequence[nn.Module], x: Tensor, targets: Sequence[int]) -> list[Resources]:
    """Resources of each form in which the networks use a kernel in a forward and backward pass of x."""
    with compiled_instead_of_launched(targets) as found:
        for network in networks:
            with mock.patch.multiple(dispatch, **AS_ON_A_GPU), torch.autocast("cpu", torch.float16):
                outputs = network(x)
                sum(output.float().sum() for output in outputs).backward()
    return resources(found)


def resources(found: Forms) -> list[Resources]:
    """Of all that was compiled, in alphabetical order."""
    results = []
    for (kernel, form, target, _), code in sorted(found.items()):
        registers, spilled = assembled(code.asm["ptx"], target)
        results.append(
            Resources(
                kernel=kernel,
                form=form,
                target=target,
                registers=registers,
                spilled_bytes=spilled,
                shared_bytes=code.metadata.shared,
            )
        )
    return results


def page(results: Sequence[Resources], networks: str, targets: Sequence[int]) -> str:
    """Markdown: a row for each kernel, with its worst form, and what the spills come to."""
    header = ["kernel", "forms", *(f"sm_{target}: {what}" for target in targets for what in ("registers", "spilled"))]
    keys = ("registers", "spilled_bytes")
    rows = []
    for kernel in sorted({one.kernel for one in results}):
        of_kernel = [[one for one in results if (one.kernel, one.target) == (kernel, target)] for target in targets]
        cells = [str(max(getattr(one, key) for one in forms)) for forms in of_kernel for key in keys]
        rows.append([kernel, str(len(of_kernel[0])), *cells])
    spilling = sorted({one.kernel for one in results if one.spilled_bytes})
    largest = max(one.shared_bytes for one in results) // 1024
    conclusion = "No kernel spills."
    if spilling:
        conclusion = f"**{len(spilling)} of {len(rows)} kernels spill**, in their widest forms most:\n"
        conclusion += "\n".join(f"`{kernel}`," for kernel in spilling[:-1]) + f"\n`{spilling[-1]}`."
    return f"""# Registers of the kernels

Written by `python -m benchmarks.kernel_resources` (see `--help`) without a GPU: Triton {triton.__version__}, networks
{networks}, float16. Each row shows the largest numbers of the forms in which these networks use a kernel; all forms are
in [kernel_resources.json](kernel_resources.json). A thread has at most 255 registers; what does not fit is *spilled*:
bytes that a thread stores to memory and loads again. Programs use at most {largest} KiB of shared memory; sm_80 has
163, sm_90 and sm_100 have 227.

{conclusion}
What that costs in time has **not been measured on a GPU yet**, so the sizes of the tiles stay as they are.

{markdown_table([header, *rows], right=True)}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = ("default", "swin")
    parser.add_argument("--variants", nargs="+", choices=sorted(VARIANTS), default=usual, help="default default swin")
    # Kernels depend on the number of channels, not on the size of the volume.
    parser.add_argument("--patch", type=int, nargs="+", default=[32, 32, 32], help="default 32 32 32")
    parser.add_argument("--targets", type=int, nargs="+", default=TARGETS, help="compute capabilities, times ten")
    parser.add_argument(
        "--docs", type=output_folder_or_none, default="docs/measured", help="folder for the results; empty: none"
    )
    options = parser.parse_args(arguments)
    networks = [build_variant(name, 4, 4, options.patch, deep_supervision=True) for name in options.variants]
    results = measure(networks, torch.zeros(1, 4, *options.patch), options.targets)
    text = page(results, " and ".join(options.variants), options.targets)
    print(text)
    if options.docs:
        rows = {"triton": triton.__version__, "variants": list(options.variants), "rows": list(map(asdict, results))}
        write_text_atomically(options.docs / f"{NAME}.json", json.dumps(rows, indent=1) + "\n")
        write_text_atomically(options.docs / f"{NAME}.md", text)


if __name__ == "__main__":
    main()
