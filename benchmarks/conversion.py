"""How long a conversion takes, compared with copying the same bytes.

    python -m benchmarks.conversion --work DIR --cases 20

Writes synthetic BraTS 2021 patients of the release's size (240 x 240 x 155 voxels) below DIR once, then copies their
files with ``shutil`` and converts them, in turns. Checking reads every voxel, so it has a time of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

from factorizer_nnunet.dataset_conversion.convert import convert_release
from factorizer_nnunet.dataset_conversion.discover import list_files
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.releases import RELEASES

SHAPE = (240, 240, 155)
MODALITIES = ("t1", "t1ce", "t2", "flair")


def write_patients(folder: Path, cases: int) -> None:
    """Patients with a smooth head in zeros, as skull-stripped images are; files that are there stay."""
    radius = sum(
        ((np.arange(n) - n / 2) / (0.4 * n)).reshape([-1 if i == a else 1 for i in range(3)]) ** 2
        for a, n in enumerate(SHAPE)
    )
    head = radius < 1
    affine = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]], float)
    for case in range(cases):
        name = f"BraTS2021_{case:05d}"
        rng = np.random.default_rng(case)
        (folder / name).mkdir(parents=True, exist_ok=True)
        texture = gaussian_filter(rng.normal(size=SHAPE).astype(np.float32), 2)
        for modality in MODALITIES:
            path = folder / name / f"{name}_{modality}.nii.gz"
            if not path.exists():
                image = head * (400 + 2000 * texture + 20 * rng.normal(size=SHAPE))
                nibabel.save(nibabel.Nifti1Image(image.clip(0).astype(np.int16), affine), path)
        path = folder / name / f"{name}_seg.nii.gz"
        if not path.exists():
            label = np.where(head & (texture > 0.1), 2, 0) + np.where(head & (texture > 0.15), 2, 0)
            nibabel.save(nibabel.Nifti1Image(label.astype(np.uint8), affine), path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the patients and the results")
    parser.add_argument("--cases", type=int, default=20, help="patients (default 20, some 8 MB each)")
    parser.add_argument("--rounds", type=int, default=3, help="turns (default 3)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    options = parser.parse_args(arguments)
    source = options.work / f"source_{options.cases}"
    write_patients(source, options.cases)
    files = list(source.rglob("*.nii.gz"))
    total = sum(path.stat().st_size for path in files)
    seconds: dict[str, list[float]] = {"copying": [], "checking": [], "writing": []}
    checked: list[float] = []  # when
    for _ in range(options.rounds):
        copy, raw = options.work / "copy", options.work / "raw"
        for folder in (copy, raw):
            shutil.rmtree(folder, ignore_errors=True)
        start = time.perf_counter()
        copy.mkdir()
        for path in files:
            shutil.copyfile(path, copy / path.name)
        os.sync()
        seconds["copying"].append(time.perf_counter() - start)
        start = time.perf_counter()
        convert_release(
            RELEASES["brats2021"],
            list_files([source]),
            raw,
            Options(dataset_id=1, jobs=options.jobs),
            lambda survey: checked.append(time.perf_counter()),
        )
        os.sync()
        seconds["checking"].append(checked[-1] - start)
        seconds["writing"].append(time.perf_counter() - checked[-1])
        shutil.rmtree(copy)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {options.jobs} jobs; {len(files)} files, {total / 1e6:.0f} MB"
    )
    copying = statistics.median(seconds["copying"])
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"{name:9s} {middle:7.2f} s  {total / middle / 1e6:7.0f} MB/s  {middle / copying:6.2f} x copying")


if __name__ == "__main__":
    main()
