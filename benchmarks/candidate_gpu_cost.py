"""What candidates for the default would cost on a GPU, by launches and bytes, estimated without one.

    python -m benchmarks.candidate_gpu_cost
    python -m benchmarks.candidate_gpu_cost --networks plain default

Both passes of each network at nnU-Net's plan for isotropic images, as ``torch.compile`` makes them for an H100 with our
kernels under autocast to float16; see ``benchmarks.step_operators``. Bytes are what each kernel and library call reads
and writes, each tensor once. Nothing is computed. Writes candidate_gpu_cost.json and .md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn
from tqdm import tqdm

from benchmarks.compiled_without_gpu import compiled_passes
from benchmarks.gpu.training import CONFIGURATION, example_plans
from benchmarks.nnunet_commands import ROOT
from benchmarks.output_paths import json_output
from benchmarks.real_data.arms import BASELINE
from benchmarks.real_data.candidates import ALL_ARMS
from benchmarks.step_operators import CLASSES, as_on_a_gpu, count_launches
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.markdown import markdown_table

RESULTS = ROOT / "docs" / "measured" / "candidate_gpu_cost.json"
NETWORKS = (
    *("plain", BASELINE, "default", "everywhere", "no_nmf", "plain_everywhere", "plain_no_nmf", "nmf_from_second"),
    *("two_depthwise", "gated", "two_blocks", "two_blocks_everywhere", "wider_below"),
)
CHANNELS = 4
_FORM = "plain"  # with which the others are compared


def network_of(arm: str, patch: Sequence[int]) -> nn.Module:
    """The network of an arm for nnU-Net's plan of a patch."""
    plan = example_plans(patch, patch)["configurations"][CONFIGURATION]
    entry = ALL_ARMS[arm].architecture(plan)
    names = ("network_class_name", "arch_kwargs", "_kw_requires_import")
    return get_network_from_plans(*(entry[name] for name in names), CHANNELS, CLASSES, deep_supervision=True)


def cost(network: nn.Module, patch: Sequence[int], batch: int) -> dict[str, float]:
    """Launches and GB (10⁹ bytes) of both passes."""
    x = torch.zeros(batch, CHANNELS, *patch)
    with as_on_a_gpu(inlined=False):
        passes = compiled_passes(network, x)
    return {
        "launches": sum(count_launches(one).total for one in passes),
        "gb": sum(one.num_bytes for one in passes) / 1e9,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def page(results: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    size, found = "×".join(map(str, results["patch"])), results["networks"]
    rows = [["", "launches", "GB", "GB relative to plain", "weights"]]
    for arm, own in found.items():
        share = own["gb"] / found[_FORM]["gb"]
        weights = f"{own['parameters'] / 1e6:.2f} M"
        rows.append([ALL_ARMS[arm].title, f"{own['launches']}", f"{own['gb']:.1f}", f"{share:.2f}", weights])
    return f"""# What candidates would cost on a GPU

Written by `python -m benchmarks.candidate_gpu_cost` (see `--help`) without a GPU, from
[candidate_gpu_cost.json](candidate_gpu_cost.json): both passes at nnU-Net's plan for isotropic images, patch {size},
batch {results["batch"]}, {CHANNELS} channels, float16, as torch {results["torch"]} compiles them for an H100. A
training step is bound by memory where it is not bound by launches: bytes and launches say which candidates cannot be
cheap there. A tensor that a kernel reads several times from the cache counts once. Kernels of 5 are not in the table:
they move as much as the plain form, but our kernels for GPUs have at most 3 voxels along an axis, and cuDNN's depthwise
convolution is slow. Times have **not been measured**.

{markdown_table(rows, right=True)}
"""


def check_same(known: Mapping[str, Any], results: Mapping[str, Any], file: Path) -> None:
    """Check that the networks of a file were compiled for the same patch and batch, by the same PyTorch.

    Raises:
        UserError: they were not.
    """
    for key in ("patch", "batch", "torch"):
        if known.get(key) != results[key]:
            raise UserError(f"{file}: {key} is {known.get(key)}, now {results[key]}: name another file (--results)")
    if not isinstance(known.get("networks"), dict):
        raise UserError(f"{file} has no networks: restore it from git, or name another file (--results)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Estimate all networks and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, nargs=3, default=[128, 128, 128], help="default 128 128 128")
    parser.add_argument("--batch", type=int, default=2, help="default %(default)s")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NAME", help="default all")
    parser.add_argument("--results", type=json_output, default=RESULTS, help="JSON file to extend; page next to it")
    options = parser.parse_args(arguments)
    file: Path = options.results
    results = {"patch": options.patch, "batch": options.batch, "torch": torch.__version__}
    networks: dict[str, Any] = {}
    try:
        if file.exists():
            known = load_json_object(file, "Restore it from git")
            check_same(known, results, file)
            networks = dict(known["networks"])
        if _FORM not in (*networks, *options.networks):
            raise UserError(f"all are compared with {_FORM}: add it to --networks")
    except UserError as error:
        sys.exit(f"error: {error}")
    for arm in tqdm(options.networks, unit="network"):
        torch.manual_seed(0)
        networks[arm] = cost(network_of(arm, options.patch), options.patch, options.batch)
    results["networks"] = {arm: networks[arm] for arm in NETWORKS if arm in networks}
    write_text_atomically(file, json.dumps(results, indent=1) + "\n")
    write_text_atomically(file.with_suffix(".md"), page(results))


if __name__ == "__main__":
    main()
