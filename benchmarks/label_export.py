"""Time and peak memory from logits to labels on the image's grid, compared with nnU-Net's export.

    python -m benchmarks.label_export              # a CT of 300 x 512 x 512 voxels with 25 classes: 10 GB for nnU-Net
    python -m benchmarks.label_export --scale 0.5  # half as many voxels along each axis

Logits are smooth random fields in an ellipsoid, background outside. Each way has its own process, whose peak memory
includes Python and the logits themselves.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from factorizer_nnunet.prediction.label_decision import Source, decide_labels
from factorizer_nnunet.prediction.resampling import axis_maps

SOURCE, TARGET, CLASSES = (200, 273, 273), (300, 512, 512), 25
SPACING, TARGET_SPACING = (1.5, 1.5, 1.5), (1.0, 0.8, 0.8)  # mm
RESAMPLE = partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None)
_COARSE = 14  # voxels of the image for each independent random value


def random_logits(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """(classes, z, y, x), half precision, as nnU-Net's sliding window returns them."""
    torch.manual_seed(seed)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, size) for size in shape], indexing="ij")
    outside = sum((axis / 0.8) ** 2 for axis in axes) > 1
    logits = torch.empty(CLASSES, *shape, dtype=torch.float16)
    for number in range(CLASSES):
        coarse = torch.randn(1, 1, *[max(2, size // _COARSE) for size in shape])
        field = torch.nn.functional.interpolate(coarse, shape, mode="trilinear")[0, 0]
        logits[number] = field.masked_fill_(outside, 5.0 if number == 0 else -5.0)
    return logits


def measure(by_nnunet: bool, scale: float) -> tuple[float, float, int]:
    """CPU seconds, peak memory of this process in GB, and a checksum of the labels."""
    torch.set_num_threads(1)
    source, target = (tuple(int(size * scale) for size in shape) for shape in (SOURCE, TARGET))
    labels = LabelManager({"background": 0, **{f"class {n}": n for n in range(1, CLASSES)}}, None)
    logits = random_logits(source)
    start = time.process_time()
    if by_nnunet:
        resampled = RESAMPLE(logits, target, SPACING, TARGET_SPACING)
        result = np.asarray(labels.convert_logits_to_segmentation(resampled))
    else:
        maps = axis_maps(RESAMPLE, source, target, SPACING, TARGET_SPACING)
        assert maps is not None
        result = decide_labels([Source(logits.unbind(1), maps, rounds=True)], labels)
    seconds = time.process_time() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, int(result.sum(dtype=np.int64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the image along each axis (default: 1)")
    scale = parser.parse_args().scale
    rows = {}
    for name, by_nnunet in (("nnU-Net", True), ("factorizer-nnunet", False)):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            rows[name] = process.submit(measure, by_nnunet, scale).result()
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, ", end="")
    print(f"nnunetv2 {version('nnunetv2')}; one thread, scale {scale}\n")
    print("| | CPU s | peak memory, GB | time and memory relative to nnU-Net |\n|---|---|---|---|")
    for name, (seconds, memory, _) in rows.items():
        before, most, _ = rows["nnU-Net"]
        print(f"| {name} | {seconds:.1f} | {memory:.1f} | {seconds / before:.2f}, {memory / most:.2f} |")
    print(f"\nsums of the labels: {', '.join(str(row[2]) for row in rows.values())}")


if __name__ == "__main__":
    main()
