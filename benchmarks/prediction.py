"""Time and peak memory of predictions, next to nnUNetv2_predict with the same model on the same machine.

    python -m benchmarks.prediction --work FOLDER --json results.json --scale 0.5  # about ten minutes on two cores
    python -m benchmarks.prediction --work FOLDER --json results.json --limit 4    # the CT with 4 GB in all, ours only
    python -m benchmarks.prediction --json docs/measured/prediction.json --page docs/measured/prediction.md

Memory is the sum of the resident memory of all processes of a command, looked at every 20 ms. Cases and models are made
by this script: an ellipsoid with random texture in constant air, and a tiny U-Net with random weights that sees
background in air. On a CPU a network of the usual width takes nearly all of the time, so that no other part could be
seen; on a GPU, reading, resampling and writing take most, and this tiny network stands for that. Rows that the JSON
file has are not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import SimpleITK
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from benchmarks.output_paths import output_file

GB = 1e9
STOCK, OURS = "nnU-Net", "factorizer-nnunet"
_SECONDS_BETWEEN_LOOKS = 0.02
_AIR, _TEXTURE = -1.0, 12  # value outside the ellipsoid; voxels of the image for each independent random value


@dataclass(frozen=True)
class Row:
    """Images and a model for them; sizes and millimetres along z, y, x."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    plan_spacing: tuple[float, float, float]
    patch: int  # along each axis
    labels: Mapping[str, Any]
    regions_order: tuple[int, ...] | None = None
    channels: int = 1
    cases: int = 1
    folds: int = 1
    scaled: bool = True


_CT = Row(
    (300, 512, 512),
    (1.0, 0.8, 0.8),
    (1.5, 1.5, 1.5),
    128,
    {"background": 0, **{f"organ {number}": number for number in range(1, 25)}},
)
_REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
ROWS = {
    "CT, 25 classes": _CT,
    "MR, 4 channels, regions": Row((155, 240, 240), (1, 1, 1), (1, 1, 1), 128, _REGIONS, (1, 2, 3), channels=4),
    "small cases": Row(
        (36, 50, 35), (1, 1, 1), (1, 1, 1), 32, {"background": 0, "a": 1, "p": 2}, cases=200, scaled=False
    ),
    "CT, five folds": replace(_CT, folds=5),
}
_FOLD_ROWS = ("CT, five folds", "CT, 25 classes")  # five folds and one


def write_images(row: Row, size: Sequence[int], folder: Path) -> None:
    """Write the cases; the same ones each time."""
    folder.mkdir(parents=True, exist_ok=True)
    axes = np.meshgrid(*[np.linspace(-1, 1, one, dtype=np.float32) for one in size], indexing="ij", sparse=True)
    inside = sum((axis / 0.8) ** 2 for axis in axes) < 1
    for case in range(row.cases):
        for channel in range(row.channels):
            torch.manual_seed(10 * case + channel)
            coarse = torch.randn(1, 1, *[max(2, one // _TEXTURE) for one in size])
            texture = torch.nn.functional.interpolate(coarse, tuple(size), mode="trilinear")[0, 0].numpy()
            image = SimpleITK.GetImageFromArray(np.where(inside, texture * 100, _AIR * 1000).astype(np.int16))
            image.SetSpacing(row.spacing[::-1])
            SimpleITK.WriteImage(image, str(folder / f"case{case:03d}_{channel:04d}.nii.gz"))


def write_model(row: Row, patch: int, folder: Path) -> None:
    """Write plans, ``dataset.json`` and the checkpoints of a tiny U-Net with random weights."""
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            **{"n_stages": 2, "features_per_stage": [4, 4], "n_conv_per_stage": [1, 1]},
            **{"n_conv_per_stage_decoder": [1], "kernel_sizes": [[1] * 3, [3] * 3], "conv_bias": True},
            **{"strides": [[1] * 3, [4] * 3], "conv_op": "torch.nn.modules.conv.Conv3d"},
            **{"norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"affine": True}},
            **{"nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}, "dropout_op": None},
            "dropout_op_kwargs": None,
        },
        "_kw_requires_import": ["conv_op", "norm_op", "nonlin", "dropout_op"],
    }
    linear = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        **{"batch_size": 2, "patch_size": [patch] * 3, "spacing": list(row.plan_spacing), "architecture": architecture},
        "normalization_schemes": ["ZScoreNormalization"] * row.channels,
        "use_mask_for_norm": [False] * row.channels,
        **{f"resampling_fn_{one}": "resample_data_or_seg_to_shape" for one in ("data", "seg", "probabilities")},
        "resampling_fn_data_kwargs": {**linear, "order": 3},
        "resampling_fn_seg_kwargs": {**linear, "is_seg": True},
        "resampling_fn_probabilities_kwargs": linear,
    }
    plans = {
        **{"dataset_name": "Dataset990_Benchmark", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO"},
        **{"transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager"},
        "foreground_intensity_properties_per_channel": {str(channel): {} for channel in range(row.channels)},
        "configurations": {"3d_fullres": configuration},
    }
    dataset = {
        "channel_names": {str(channel): f"channel {channel}" for channel in range(row.channels)},
        **{"labels": row.labels, "numTraining": 1, "file_ending": ".nii.gz"},
        **({} if row.regions_order is None else {"regions_class_order": row.regions_order}),
    }
    outputs = len(row.labels) - (row.regions_order is not None)
    for fold in range(row.folds):
        torch.manual_seed(fold)
        network = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            row.channels,
            outputs,
            deep_supervision=False,
        ).eval()
        with torch.no_grad():  # background where nothing is
            head = network.decoder.seg_layers[-1]
            air = network(torch.full((1, row.channels, 32, 32, 32), _AIR))[0, :, 16, 16, 16]
            head.bias -= air + 0.1 if row.regions_order else air
            if not row.regions_order:
                head.bias[0] += 0.1
        checkpoint = {
            **{"network_weights": network.state_dict(), "trainer_name": "nnUNetTrainer"},
            "init_args": {"configuration": "3d_fullres"},
            "inference_allowed_mirroring_axes": (0, 1, 2),
        }
        (folder / f"fold_{fold}").mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    for name, content in (("plans", plans), ("dataset", dataset)):
        (folder / f"{name}.json").write_text(json.dumps(content))


def measure(command: Sequence[str], out: Path, cases: int, log: Path, limit: float | None) -> dict[str, Any]:
    """Run a command to its end.

    Args:
        command: what to run.
        out: where it writes segmentations.
        cases: how many.
        log: gets what it prints.
        limit: GB of memory that all of its processes together may have, by a control group of Linux.

    Returns:
        ``seconds``; ``gb``, the peak of all processes together; ``growth``, the peak of the last third of several cases
        relative to that of the middle third; ``stages``, seconds of all cases in each, where the command prints them.
    """

    group = None if limit is None else _memory_group(limit)

    def join_group() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    environment = {**os.environ, "nnUNet_compile": "f", "PYTHONUNBUFFERED": "1"}
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        environment.setdefault(name, str(log.parent))
    start = time.monotonic()
    peaks = [0] * (cases + 1)  # by the number of segmentations that are there
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True, preexec_fn=join_group
        )
        while process.poll() is None:
            written = min(cases, len(list(out.glob("*.nii.gz"))))
            peaks[written] = max(peaks[written], _resident(process.pid))
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    if group is not None:
        group.rmdir()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}, see {log}")
    third = cases // 3
    middle, last = (max(peaks[first : first + third], default=0) for first in (third, 2 * third))
    return {
        "seconds": round(time.monotonic() - start, 1),
        "gb": round(max(peaks) / GB, 2),
        "growth": round(last / middle, 3) if middle else None,
        "stages": _stages(log),
    }


def _memory_group(limit: float) -> Path:
    """A new control group with a limit of GB, whose processes are killed above it; needs root."""
    v1 = Path("/sys/fs/cgroup/memory")
    group = (v1 if v1.is_dir() else Path("/sys/fs/cgroup")) / f"prediction-benchmark-{os.getpid()}"
    group.mkdir()
    (group / ("memory.limit_in_bytes" if v1.is_dir() else "memory.max")).write_text(str(int(limit * GB)))
    return group


def _stages(log: Path) -> dict[str, float]:
    """Seconds of each stage in the lines of ``--verbose``, added up."""
    total: dict[str, float] = {}
    for line in re.findall(r"^case\d+: (.* s)$", log.read_text(), re.MULTILINE):
        for stage, seconds in re.findall(r"([a-z ]+) ([\d.]+) s", line):
            total[stage.strip()] = round(total.get(stage.strip(), 0) + float(seconds), 1)
    return total


def _resident(session: int) -> int:
    """Bytes of resident memory of all processes of a session."""
    total = 0
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and os.getsid(int(folder.name)) == session:
                total += int((folder / "statm").read_text().split()[1]) * resource.getpagesize()
        except OSError:  # it has ended
            continue
    return total


def measure_row(name: str, args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Predict a row's cases with each program that the results lack, and compare the segmentations."""
    row = ROWS[name]
    if args.cases is not None and row.cases > 1:
        row = replace(row, cases=args.cases)
    scale = args.scale if row.scaled else 1.0
    key = name if row.cases == 1 else f"{row.cases} {name}"
    key = key if scale == 1 else f"{key}, scale {scale:g}"
    folder = args.work / key.replace(", ", "-").replace(" ", "_")
    images, model = folder / "images", folder / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    if not images.is_dir():
        write_images(row, [int(size * scale) for size in row.size], images)
    write_model(row, max(32, int(row.patch * scale) // 8 * 8), model)
    shared = ["-m", str(model), "-i", str(images), "-device", "cpu", "-f", *map(str, range(row.folds))]
    shared += [] if args.mirroring else ["--disable_tta"]
    ours = [sys.executable, "-m", "factorizer_nnunet", "predict", "--verbose"]
    if args.limit is None:
        stock = str(Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder"))
        # Several folds are compared with one fold of our own.
        programs = {OURS: ours} if row.folds > 1 else {STOCK: [stock], OURS: ours}
    else:
        programs = {f"{OURS}, {args.limit:g} GB": [*ours, "--memory", str(args.limit)]}
    found = results.setdefault(key, {})
    for program, command in programs.items():
        if program in found:
            continue
        out = folder / "out" / program
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(exist_ok=True)
        command, log = [*command, *shared, "-o", str(out)], folder / f"{program}.log"
        found[program] = measure(command, out, row.cases, log, args.limit)
        print(f"{key}, {program}: {found[program]}", flush=True)
        pairs = [(file, folder / "out" / STOCK / file.name) for file in sorted(out.glob("*.nii.gz"))]
        if program != STOCK and all(other.is_file() for _, other in pairs):
            found[program]["equal"] = round(min(_equal(*pair) for pair in pairs), 6)
        versions = ", ".join(f"{one} {version(one)}" for one in ("torch", "nnunetv2"))
        found["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, {versions}"
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def _equal(*files: Path) -> float:
    one, other = (SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))) for file in files)
    return float((one == other).mean())


def page(results: Mapping[str, Any], picture: str) -> str:
    """The results as Markdown."""
    lines = [
        "# Time and memory of predictions",
        "",
        "Repeat with `python -m benchmarks.prediction --work FOLDER --json results.json`. Memory is the peak of all",
        "processes of a command together. The network is tiny, since on a CPU one of the usual width takes nearly all",
        "of the time, in either program; on a GPU the other parts do.",
        "",
        "| case | program | s | GB | time | memory | equal labels | growth |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, found in results.items():
        for program, one in found.items():
            if program == "machine":
                continue
            stock = found.get(STOCK)
            ratios = [f"{one[unit] / stock[unit]:.2f} ×" if stock else "–" for unit in ("seconds", "gb")]
            equal = f"{100 * one['equal']:.3f} %" if "equal" in one else "–"
            cells = [key, program, one["seconds"], one["gb"], *ratios, equal, one["growth"] or "–"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    machines = sorted({found["machine"] for found in results.values()})
    lines += [
        "",
        "Time and memory are relative to nnU-Net; labels equal to nnU-Net's are those of the worst case; growth is the",
        "peak of memory in the last third of the cases relative to the middle third.",
        *_five_folds(results),
        f"Machine: {'; '.join(machines)}, which other programs used, too.",
        "",
        f"![Seconds of each stage]({picture})",
        "",
    ]
    return "\n".join(lines)


def _five_folds(results: Mapping[str, Any]) -> list[str]:
    """Sentences that compare five folds with one, where both were measured."""
    lines = []
    for key, found in results.items():
        one = results.get(key.replace(*_FOLD_ROWS)) if key.startswith(_FOLD_ROWS[0]) else None
        if one is not None and OURS in found and OURS in one:
            ratio = found[OURS]["gb"] / one[OURS]["gb"]
            lines.append(f"{key}: {ratio:.2f} × the memory of one fold.")
    return lines


def draw(results: Mapping[str, Any], file: Path) -> None:
    """Draw the seconds of each stage next to the time of nnU-Net."""
    rows = [
        (key, program, one) for key, found in results.items() for program, one in found.items() if program != "machine"
    ]
    figure, axes = plt.subplots(figsize=(9, 0.6 + 0.45 * len(rows)), layout="constrained")
    stages = ("reading and preprocessing", "network", "labels", "writing")
    colours = dict(zip(stages, plt.get_cmap("tab10").colors, strict=False))
    for place, (_, _, one) in enumerate(rows):
        axes.barh(place, one["seconds"], color="0.85")
        left = 0.0
        for stage, seconds in one["stages"].items():
            axes.barh(place, seconds, left=left, height=0.5, color=colours[stage])
            left += seconds
    axes.set_yticks(range(len(rows)), [f"{key}: {program}" for key, program, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("seconds; grey: the command; colour: stages of all cases, which overlap")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    figure.legend(handles, stages, ncols=4, loc="outside upper center")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for cases, models and predictions; without it, only the page")
    parser.add_argument("--json", type=output_file, required=True, help="results, extended by each run")
    parser.add_argument("--page", type=output_file, help="Markdown file to write from all results; picture next to it")
    parser.add_argument("--scale", type=float, default=1.0, help="of images and patches along each axis (default: 1)")
    parser.add_argument("--cases", type=int, help="number of small cases (default: 200)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument(
        "--limit", type=float, help="GB of memory in all (control group, as root), and --memory; ours only"
    )
    parser.add_argument(
        "--mirroring", action="store_true", help="average over mirrored images, which takes 8 times as long"
    )
    args = parser.parse_args()
    results: dict[str, Any] = json.loads(args.json.read_text()) if args.json.exists() else {}
    for name in args.rows if args.work else ():
        measure_row(name, args, results)
    if args.page is not None:
        picture = args.page.with_suffix(".png")
        draw(results, picture)
        args.page.write_text(page(results, picture.name), encoding="utf-8")


if __name__ == "__main__":
    main()
