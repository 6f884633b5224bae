"""Time of a complete case in nnU-Net's own sliding window, compared with nnU-Net's U-Net.

    python -m benchmarks.whole_case                      # 240 x 240 x 155 voxels, four channels, without mirroring
    python -m benchmarks.whole_case --device cuda --mirror --compile

Networks have random weights, which cost what trained ones cost. They take turns, so the ratios hold on a shared
machine. The last row runs the eight mirrored copies of one patch as a batch instead of one after the other, to show
what batching them would win.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn

from benchmarks.speed.networks import DEFAULT, NETWORKS, PUBLISHED, UNET

CLASSES = 4
_DATASET = {
    "channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"},
    "labels": {"background": 0, "edema": 1, "necrosis": 2, "enhancing": 3},
    "file_ending": ".nii.gz",
}


def predictor(network: nn.Module, patch: Sequence[int], device: str, mirror: bool) -> nnUNetPredictor:
    """nnU-Net's predictor as its command sets it up, with a network in memory."""
    architecture = {"network_class_name": type(network).__name__, "arch_kwargs": {}, "_kw_requires_import": []}
    configuration = {"patch_size": list(patch), "spacing": [1.0] * 3, "batch_size": 2, "architecture": architecture}
    plans = PlansManager({"configurations": {"3d_fullres": configuration}, "plans_name": "nnUNetPlans"})
    result = nnUNetPredictor(use_mirroring=mirror, device=torch.device(device), verbose=False, allow_tqdm=False)
    axes = (0, 1, 2) if mirror else None
    result.manual_initialization(
        network, plans, plans.get_configuration("3d_fullres"), None, _DATASET, "nnUNetTrainer", axes
    )
    return result


def seconds_of(action: Callable[[], object], device: str) -> float:
    """Seconds that ``action`` takes, with what it leaves running on the GPU."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    action()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.no_grad()
def mirrored_batch(network: nn.Module, patch: Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """The eight mirrored copies of ``patch`` (1, C, x, y, z) one after the other, and as one batch."""
    axes = [c for count in range(4) for c in itertools.combinations((2, 3, 4), count)]
    copies = [torch.flip(patch, a) for a in axes]
    batch = torch.cat(copies)
    return lambda: [network(copy) for copy in copies], lambda: network(batch)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(155, 240, 240), help="of the case, in voxels")
    parser.add_argument("--patch", type=int, nargs=3, default=(128, 128, 128), help="of the sliding window, in voxels")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[UNET, DEFAULT, PUBLISHED], metavar="NAME")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--mirror", action="store_true", help="mirror along all axes, as nnU-Net does by default")
    parser.add_argument("--compile", action="store_true", help="compile the networks, as nnU-Net does on a GPU")
    parser.add_argument("--rounds", type=int, default=1, help="turns of each network (default 1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: all cores)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True  # as nnU-Net sets it
    torch.manual_seed(0)
    image = torch.randn(len(_DATASET["channel_names"]), *options.shape)
    networks = {}
    for name in options.networks:
        network = NETWORKS[name](len(image), CLASSES, options.patch).to(options.device).eval()
        networks[name] = torch.compile(network) if options.compile else network
    times: dict[str, list[float]] = {name: [] for name in networks}
    small = torch.randn(len(image), *options.patch)
    for network in networks.values():  # compiles, and fills caches
        predictor(network, options.patch, options.device, False).predict_sliding_window_return_logits(small)
    for _, (name, network) in itertools.product(range(options.rounds), networks.items()):
        ready = predictor(network, options.patch, options.device, options.mirror)
        times[name].append(
            seconds_of(lambda ready=ready: ready.predict_sliding_window_return_logits(image), options.device)
        )
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {options.threads} threads"
    print(
        f"case {list(options.shape)}, patch {list(options.patch)}, mirroring {options.mirror}; {device}, "
        f"{platform.machine()}, torch {torch.__version__}"
    )
    middle = {name: statistics.median(values) for name, values in times.items()}
    for name, value in middle.items():
        ratio = f"  {middle[UNET] / value:5.2f} x as fast as {UNET}" if UNET in middle else ""
        print(f"{name:24s} {value:8.1f} s{ratio}")
    if options.mirror:
        patch = small[None].to(options.device)
        for name, network in networks.items():
            with torch.no_grad():
                single, batched = (seconds_of(f, options.device) for f in mirrored_batch(network, patch))
            print(f"{name:24s} mirrored copies as one batch: {single / batched:5.2f} x as fast as one by one")


if __name__ == "__main__":
    main()
