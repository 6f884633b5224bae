"""What looking at every voxel of a raw dataset costs, compared with reading the same files once.

    python -m benchmarks.data_check --work DIR --cases 100

Writes synthetic patients (240 x 240 x 155 voxels, four channels and a label) in nnU-Net's raw layout below DIR once,
then reads them with nnU-Net's reader, unpacks them without making arrays, and checks them as ``plan`` does, in turns
and with the same number of processes. The second check, which finds its record, is timed as well.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

from factorizer_nnunet.core.worker_pool import map_unordered
from factorizer_nnunet.dataset_check.check import Expected, check_dataset
from factorizer_nnunet.dataset_check.listing import CaseFiles
from factorizer_nnunet.dataset_check.record import RECORD_FILE

SHAPE = (240, 240, 155)
CHANNELS = ("T1", "T1ce", "T2", "FLAIR")
READER = "SimpleITKIO"
_CHUNK_BYTES = 1 << 20


def write_cases(folder: Path, shape: tuple[int, ...], cases: int) -> list[CaseFiles]:
    """Smooth heads in zeros, as skull-stripped images are; existing files stay."""
    radius = sum(
        ((np.arange(n) - n / 2) / (0.4 * n)).reshape([-1 if i == a else 1 for i in range(3)]) ** 2
        for a, n in enumerate(shape)
    )
    head = radius < 1
    listed = []
    for number in range(cases):
        name = f"case_{number:04d}"
        images = tuple(folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz" for channel in range(len(CHANNELS)))
        listed.append(CaseFiles(name, images, folder / "labelsTr" / f"{name}.nii.gz"))
        if listed[-1].label.exists():
            continue
        rng = np.random.default_rng(number)
        texture = gaussian_filter(rng.normal(size=shape).astype(np.float32), 2)
        for path in (*images, listed[-1].label):
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.where(head & (texture > 0.1), 1 + (texture > 0.15), 0).astype(np.uint8)
            if path in images:
                values = (head * (400 + 2000 * texture + 20 * rng.normal(size=shape))).clip(0).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return listed


def read(path: Path) -> int:
    """As nnU-Net's fingerprint reads a file."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    return SimpleITKIO().read_images((os.fspath(path),))[0].size


def unpack(path: Path) -> int:
    """Decompress a file up to its checksum, without an array."""
    with gzip.open(path) as stream:
        return sum(len(chunk) for chunk in iter(lambda: stream.read(_CHUNK_BYTES), b""))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the patients and the records")
    parser.add_argument("--cases", type=int, default=100, help="patients (default 100, some 20 MB each)")
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, help="voxels (default 240 240 155)")
    parser.add_argument("--rounds", type=int, default=3, help="turns (default 3)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="default: all cores")
    options = parser.parse_args(arguments)
    raw = options.work / "x".join(map(str, [options.cases, *options.shape]))
    cases = write_cases(raw, tuple(options.shape), options.cases)
    files = [path for case in cases for path in (*case.images, case.label)]
    (raw / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "edema": 1, "core": 2}}))
    expected = Expected(raw / "dataset.json", CHANNELS, {0: "background", 1: "edema", 2: "core"}, frozenset())
    record = options.work / "record"

    def all_files(function: Callable[[Path], int]) -> None:
        for _ in map_unordered(function, files, options.processes, function.__name__):
            pass

    check = partial(check_dataset, cases, expected, READER, record, options.processes)
    ways = {
        "reading": partial(all_files, read),
        "unpacking": partial(all_files, unpack),
        "checking": check,
        "checking again": check,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        shutil.rmtree(record, ignore_errors=True)
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    total = sum(path.stat().st_size for path in files)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {options.processes} processes, Python "
        f"{platform.python_version()}, SimpleITK {version('SimpleITK')}, nnunetv2 {version('nnunetv2')}\n"
        f"{len(cases)} cases, {len(files)} files, {total / 1e6:.0f} MB; record {RECORD_FILE}"
    )
    reading = statistics.median(seconds["reading"])
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"{name:14s} {middle:7.2f} s  {middle / reading:6.2f} x reading")


if __name__ == "__main__":
    main()
