"""What looking at every voxel of a raw dataset costs, compared with reading the same files once.

    python -m benchmarks.data_check --work DIR --cases 100

Writes synthetic patients (240 x 240 x 155 voxels, four channels and a label) in nnU-Net's raw layout below DIR once,
then reads them with nnU-Net's reader, unpacks them without making arrays, and checks them as ``plan`` does, in turns
and with the same number of processes. The second check, which finds its record, is timed as well. With --plan, the
check is also compared with ``plan`` of 3d_fullres, which includes it. What has been measured is kept in
``measured.json`` below DIR and is not measured again. --document writes the page of the results, and the numbers next
to it as JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

from factorizer_nnunet.core.worker_pool import map_unordered
from factorizer_nnunet.dataset_check.check import Expected, check_dataset
from factorizer_nnunet.nnunet.dataset_json import CaseFiles
from factorizer_nnunet.nnunet.environment import create_folders, environment_variables

SHAPE = (240, 240, 155)
CHANNELS = ("T1", "T1ce", "T2", "FLAIR")
READER = "SimpleITKIO"
DATASET_ID = 998
READING = "reading every file with nnU-Net's reader, as the fingerprint does"
CHECKING = "checking every voxel, as `plan` does first, with digests of the files"
PLANNING = "plan"
_CHUNK_BYTES = 1 << 20


class Times(NamedTuple):
    """Seconds by the clock, and of all processors together, which other programs hardly change."""

    wall: float
    cpu: float


def times_of(way: Callable[[], object]) -> Times:
    """How long a function takes, with the processes that it starts and ends."""
    before = os.times()
    way()
    after = os.times()
    return Times(after.elapsed - before.elapsed, sum(after[:4]) - sum(before[:4]))


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


def times_in_turns(
    cases: Sequence[CaseFiles], expected: Expected, record: Path, processes: int, rounds: int
) -> dict[str, Times]:
    """Median times of each way to go through all files, by its name."""
    files = [path for case in cases for path in (*case.images, case.label)]

    def all_files(function: Callable[[Path], int]) -> None:
        for _ in map_unordered(function, files, processes, function.__name__):
            pass

    check = partial(check_dataset, cases, expected, READER, record, processes)
    ways: dict[str, Callable[[], object]] = {
        READING: partial(all_files, read),
        "unpacking every file without making an array": partial(all_files, unpack),
        CHECKING: check,
        "checking again, files unchanged": check,
    }
    times: dict[str, list[Times]] = {name: [] for name in ways}
    for _ in range(rounds):
        shutil.rmtree(record, ignore_errors=True)
        for name, way in ways.items():
            times[name].append(times_of(way))
    return {name: Times(*map(statistics.median, zip(*each, strict=True))) for name, each in times.items()}


def times_of_plan(root: Path, processes: int) -> Times:
    """Times of ``plan -d ID -c 3d_fullres`` with fingerprint and preprocessing, from the beginning."""
    shutil.rmtree(root / "nnUNet_preprocessed", ignore_errors=True)
    create_folders(root)
    command = ["factorizer-nnunet", "plan", "-d", str(DATASET_ID), "-c", "3d_fullres", "-np", str(processes)]
    environment = {**os.environ, **environment_variables(root)}
    return times_of(partial(subprocess.run, command, check=True, env=environment))


def page(command: str, cases: Sequence[CaseFiles], times: Mapping[str, Times]) -> str:
    """The results in Markdown."""
    files = [path for case in cases for path in (*case.images, case.label)]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    reading, check, plan = times[READING], times[CHECKING], times.get(PLANNING)
    rows = "\n".join(
        f"| {name} | {one.wall:.1f} | {one.wall / reading.wall:.2f} | {one.cpu:.1f} | {one.cpu / reading.cpu:.2f} |"
        for name, one in times.items()
        if name != PLANNING
    )
    versions = (
        f"{platform.machine()}, Python {platform.python_version()}, SimpleITK {version('SimpleITK')}, "
        f"nnunetv2 {version('nnunetv2')}"
    )
    text = f"""# What looking at every voxel costs

`{command}`:
{len(cases)} synthetic patients with {len(CHANNELS)} channels and a label ({len(files)} files, {megabytes:.0f} MB).
{os.cpu_count()} cores, which other programs used, too ({versions}); files in the page cache.
Medians of the rounds. Seconds of all processors together (CPU s) depend little on other programs.

| | s | relative to reading | CPU s | relative to reading |
|---|---|---|---|---|
{rows}
"""
    if plan is not None:
        text += f"""
`plan -c 3d_fullres` of the same files with as many processes, that is, check, fingerprint and preprocessing, took
{plan.cpu:.0f} CPU s: the check is {check.cpu / plan.cpu:.1%} of it.
By the clock, {check.wall:.0f} of {plan.wall:.0f} s, but not at the same time: other programs ran, too.
"""
    return f"""{text}
Time grows with the number of cases, except that the fingerprint draws 10⁸ voxels of each channel from any number of
cases; so with more cases the check is a larger part of `plan`, and with 2d, too, a smaller one. On a disk or network
drive reading is the limit, for each alike.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the patients and the records")
    parser.add_argument("--cases", type=int, default=100, help="patients (default 100, some 20 MB each)")
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, help="voxels (default 240 240 155)")
    parser.add_argument("--rounds", type=int, default=3, help="turns (default 3)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--plan", action="store_true", help="also plan and preprocess them, once")
    parser.add_argument("--document", type=Path, help="also write the page to this file, and the numbers next to it")
    options = parser.parse_args(arguments)
    root = options.work / "x".join(map(str, [options.cases, *options.shape]))
    raw = root / "nnUNet_raw" / f"Dataset{DATASET_ID}_Measured"
    cases = write_cases(raw, tuple(options.shape), options.cases)
    content = {
        "channel_names": dict(zip("0123", CHANNELS, strict=True)),
        "labels": {"background": 0, "edema": 1, "core": 2},
        "numTraining": options.cases,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(content))
    expected = Expected(raw / "dataset.json", CHANNELS, {0: "background", 1: "edema", 2: "core"}, frozenset())
    kept = root / "measured.json"
    times = {name: Times(*one) for name, one in json.loads(kept.read_text()).items()} if kept.exists() else {}
    if READING not in times:
        times |= times_in_turns(cases, expected, root / "record", options.processes, options.rounds)
        kept.write_text(json.dumps(times, indent=1))
    if options.plan and PLANNING not in times:
        times[PLANNING] = times_of_plan(root, options.processes)
        kept.write_text(json.dumps(times, indent=1))
    command = (
        f"python -m benchmarks.data_check --work DIR --cases {options.cases} --rounds {options.rounds} "
        f"--processes {options.processes}{' --plan' if options.plan else ''}"
    )
    text = page(command, cases, times)
    print(text)
    if options.document is not None:
        options.document.write_text(text, encoding="utf-8")
        seconds = {name: one._asdict() for name, one in times.items()}
        numbers = {"cases": options.cases, "processes": options.processes, "seconds": seconds}
        options.document.with_suffix(".json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
