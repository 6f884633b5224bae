"""Speed, memory and size of the network, compared with its references.

    python -m benchmarks.speed --patch 128 128 128 --patch 64 64 64 --batch 2

All networks run in one process and take turns, so that the ratios also hold on a shared machine. Results are added to
the JSON file, page and figure in ``--docs``: one entry for each patch, batch, device, precision and mode. Before that
the instruments are checked on layers of known cost, and the literal network against the fast one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.speed.checks import check_instruments, check_literal
from benchmarks.speed.measure import (
    CLOCKS,
    FORWARD,
    MODES,
    Setting,
    machine_rates,
    multiply_adds,
    one_pass,
    peak_bytes,
    ratios,
    seconds,
)
from benchmarks.speed.networks import DEFAULT, LITERAL, NETWORKS, PLAIN, PUBLISHED, UNET, NotApplicableError
from benchmarks.speed.report import write_report
from benchmarks.speed.traffic import layer_traffic
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.wording import count_of

ALL_PATCHES = ((64, 64, 64), (96, 96, 96), (128, 128, 128), (160, 112, 128), (20, 320, 256), (512, 512))
LAYERS = {
    "NMFMixer": "NMF mixer",
    "MLP": "MLP",
    "InstanceNorm": "norm",
    "LayerNorm": "norm",
    "DepthwiseConv": "depthwise convolution",
    "Conv": "convolution",
    "Downsample": "down, up",
    "Upsample": "down, up",
    "FactorizerBlock": "blocks: NMF and MLP in parts",
    "Decoder": "skip, adapter, heads",
}


def measure(options: argparse.Namespace, patch: Sequence[int]) -> dict:
    """Everything about one patch, as plain JSON values."""
    setting, cuda = Setting(options.device, options.dtype, options.compile), options.device == "cuda"
    networks, skipped = {}, {}
    for name in options.networks or NETWORKS:
        torch.manual_seed(0)
        try:
            network = NETWORKS[name](options.channels, options.classes, patch).to(options.device)
        except NotApplicableError as error:
            skipped[name] = str(error)
            continue
        networks[name] = torch.compile(network) if options.compile else network
    x = torch.randn(options.batch, options.channels, *patch, device=options.device)
    result: dict = {
        "patch_size": list(patch),
        "batch_size": options.batch,
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {count_of(options.threads, 'thread')}",
        "dtype": options.dtype,
        "compiled": options.compile,
        "rounds": options.rounds,
        "clock": options.clock,
        "versions": {name: version(name) for name in ("torch", "nnunetv2", "factorizer_nnunet")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "rates": machine_rates(options.device),
        "skipped": skipped,
        "parameters": {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()},
        "multiply_adds": {name: multiply_adds(getattr(n, "_orig_mod", n), x) for name, n in networks.items()},
        "modes": {},
    }
    for mode in options.modes:
        memory = {}
        for name in tqdm(networks, desc=f"memory, {mode}", leave=False):
            if options.compile:
                one_pass(networks[name], x, setting, mode)
            memory[name] = peak_bytes(networks[name], x, setting, mode)
        times = seconds(networks, x, setting, mode, options.rounds, options.clock)
        result["modes"][mode] = {
            "seconds": {name: statistics.median(values) for name, values in times.items()},
            "speedup": {
                reference: ratios(times, reference) for reference in (UNET, LITERAL, PUBLISHED) if reference in times
            },
            "peak_bytes": memory,
        }
    ours = [name for name in (PUBLISHED, PLAIN, DEFAULT) if name in networks]
    result["traffic"] = {
        name: {
            kind: vars(t)
            for kind, t in layer_traffic(getattr(networks[name], "_orig_mod", networks[name]), LAYERS, x).items()
        }
        for name in ours
    }
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every patch asked for; results are written after each."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--patch", type=int, nargs="+", action="append", help="patch in voxels; can be repeated (default: six)"
    )
    parser.add_argument("--batch", type=int, default=1, help="batch size (default 1)")
    parser.add_argument("--channels", type=int, default=4, help="input channels (default 4)")
    parser.add_argument("--classes", type=int, default=4, help="output channels (default 4)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="by autocast (default float32: none)",
    )
    parser.add_argument("--compile", action="store_true", help="compile the networks with torch.compile")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: all cores)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each network (default 5)")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="processor: for a busy machine, on the CPU (default wall)"
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, metavar="NAME", help=f"default all: {', '.join(NETWORKS)}"
    )
    parser.add_argument(
        "--docs",
        type=Path,
        default=Path("docs/measured"),
        help="where results, page and figure go (default %(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: this machine has no CUDA device that torch can use; leave --device cpu")
    if options.device == "cuda" and options.clock == "processor":
        sys.exit("error: the processor's time says nothing about a GPU; leave --clock wall")
    check_instruments()
    check_literal()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True  # as nnU-Net sets it
    options.docs.mkdir(parents=True, exist_ok=True)
    target = options.docs / "speed.json"
    for patch in options.patch or ALL_PATCHES:
        known = json.loads(target.read_text()) if target.exists() else []
        entry = measure(options, patch)
        key = ("patch_size", "batch_size", "device", "dtype", "compiled", "clock")
        same = [old for old in known if all(old[k] == entry[k] for k in key)]
        for old in same:  # modes that were not measured again stay, with the size of their networks
            for part in ("modes", "parameters", "multiply_adds", "traffic"):
                entry[part] = {**old[part], **entry[part]}
        write_text_atomically(target, json.dumps([old for old in known if old not in same] + [entry], indent=1))
        forward = entry["modes"].get(FORWARD, {}).get("speedup", {}).get(UNET, {})
        print(patch, {name: round(value, 2) for name, value in forward.items()}, flush=True)
        write_report(json.loads(target.read_text()), options.docs)


if __name__ == "__main__":
    main()
