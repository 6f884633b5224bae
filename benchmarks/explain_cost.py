"""Time and peak memory of explaining a case, compared with predicting it.

    python -m benchmarks.explain_cost                        # all rows, some 30 minutes on two cores
    python -m benchmarks.explain_cost --images small         # images as small as those of the Hippocampus data

Networks have random weights, which cost the same as trained ones, and follow nnU-Net's plan for the patch size; images
are synthetic. Each run has its own process and includes preprocessing, network and writing of all files, but not the
start of Python. ``one head`` writes a single component of the finest stage, which shows the cost of the others. The
table goes to docs/measured/explain_cost.md by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import SimpleITK
import torch

from benchmarks.speed.networks import topology
from factorizer_nnunet.demo.phantom import draw_patient
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.nnunet.environment import EXT_TRAINER_VARIABLE, ext_trainer_value
from factorizer_nnunet.planning.architecture import factorizer_architecture

_Result = TypeVar("_Result")
PREDICT, ONE_HEAD, ALL = "prediction", "one head", "all components"
_TRAINER, _PLANS, _CONFIGURATION = "nnUNetTrainerFactorizer", "nnUNetPlans", "3d_fullres"


@dataclass(frozen=True)
class Image:
    """A kind of image and the patch size that nnU-Net plans for it: (z, y, x) voxels of 1 mm."""

    size: tuple[int, int, int]
    patch: tuple[int, int, int]
    channels: int
    labels: tuple[str, ...]
    rounds: int


IMAGES = {
    "small": Image((36, 50, 35), (40, 56, 40), 1, ("Anterior", "Posterior"), 5),
    "brain": Image((155, 240, 240), (128, 128, 128), 4, ("edema", "necrosis", "enhancing"), 1),
}
NETWORKS = ("default", "NMF in every stage")
MIRRORED = {False: "no", True: "yes"}
# Image, network, mirroring. The default network's rows already show what mirroring adds for a brain.
ROWS = tuple(
    (name, network, mirror)
    for name in IMAGES
    for network in NETWORKS
    for mirror in (False, True)
    if (name, network, mirror) != ("brain", "NMF in every stage", True)
)


@dataclass(frozen=True)
class Cost:
    """Cost of one way: seconds per case, peak memory of its process in MB, and the number of maps."""

    seconds: float
    peak_mb: float
    maps: int


def write_images(folder: Path, image: Image) -> None:
    """Write a synthetic head with the image's size and channels as the files of one case."""
    drawn = draw_patient(np.random.default_rng(0), tuple(max(n, 48) for n in image.size)).images
    folder.mkdir()
    for channel in range(image.channels):
        middle = tuple(slice((n - k) // 2, (n - k) // 2 + k) for n, k in zip(drawn.shape[1:], image.size, strict=True))
        SimpleITK.WriteImage(
            SimpleITK.GetImageFromArray(drawn[channel][middle]), str(folder / f"case_{channel:04d}.nii.gz")
        )


def write_model(folder: Path, image: Image, network: str) -> None:
    """Write a model folder with random weights."""
    widths, strides, kernels = topology(image.patch)
    unet = {"features_per_stage": widths, "strides": strides, "kernel_sizes": kernels}
    architecture = factorizer_architecture(unet, (1.0, 1.0, 1.0))
    if network != "default":
        architecture["arch_kwargs"]["nmf_stages"] = [True] * len(widths)
    settings = {
        "data_identifier": f"{_PLANS}_{_CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(image.patch),
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"] * image.channels,
        "use_mask_for_norm": [False] * image.channels,
        "architecture": architecture,
        "batch_dice": False,
    }
    for what in ("data", "seg", "probabilities"):
        settings[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        settings[f"resampling_fn_{what}_kwargs"] = {
            "is_seg": what == "seg",
            "order": 3 if what == "data" else 1,
            "order_z": 0,
            "force_separate_z": None,
        }
    plans = {
        "dataset_name": "Dataset001_Drawn",
        "plans_name": _PLANS,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {_CONFIGURATION: settings},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(n): {} for n in range(image.channels)},
    }
    description = {
        "channel_names": {str(n): f"channel {n}" for n in range(image.channels)},
        "labels": {"background": 0, **{name: n for n, name in enumerate(image.labels, start=1)}},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    torch.manual_seed(0)
    made = Factorizer(image.channels, 1 + len(image.labels), **architecture["arch_kwargs"], deep_supervision=False)
    checkpoint = {
        "network_weights": made.state_dict(),
        "trainer_name": _TRAINER,
        "init_args": {"configuration": _CONFIGURATION, "fold": 0},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(description))
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


def prepare(root: Path, name: str, threads: int) -> None:
    """Write images and models for one kind of image below ``root``."""
    torch.set_num_threads(threads)
    write_images(root / f"{name} images", IMAGES[name])
    for network in NETWORKS:
        write_model(root / f"{name} {network}", IMAGES[name], network)


def measured(
    root: Path, name: str, network: str, mirror: bool, way: str, device: str, threads: int, rounds: int
) -> Cost:
    """Measure the cost of one way in this process."""
    os.environ[EXT_TRAINER_VARIABLE] = ext_trainer_value(None)
    torch.set_num_threads(threads)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # maps are written on all available cores
    from factorizer_nnunet.core.file_stamps import stamp_of_value
    from factorizer_nnunet.explain.components import find_layers
    from factorizer_nnunet.explain.explainer import ExplainOptions, build_explainer
    from factorizer_nnunet.explain.run import ExplainRequest, explain_into
    from factorizer_nnunet.nnunet.image_files import ImageCase
    from factorizer_nnunet.prediction.model import load_model
    from factorizer_nnunet.prediction.outputs import Outputs
    from factorizer_nnunet.prediction.segmentation import Output, segmentation_of
    from factorizer_nnunet.prediction.sliding_window import logit_planes
    from factorizer_nnunet.prediction.work import export, preprocess

    folder = root / f"{name} {network}"
    with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net prints how it finds the trainer
        model = load_model(folder, ["0"], "checkpoint_final.pth")
    case = ImageCase("case", tuple(sorted((root / f"{name} images").iterdir())))
    on = torch.device(device)
    seconds, maps = [], 0
    if way == PREDICT:
        predictor = model.predictor(on, tile_step_size=0.5, use_mirroring=mirror, on_device=device == "cuda")
    else:
        first = find_layers(model.network, folder)[0].name  # of all stages it needs most memory
        chosen = {"stages": (first,), "heads": (1,)} if way == ONE_HEAD else {}
        explainer = build_explainer(model, on, ExplainOptions(use_mirroring=mirror, **chosen))
        maps = sum(len(layer.components(explainer.options.heads)) for layer in explainer.layers)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=root) as out:
            start = time.perf_counter()
            if way == PREDICT:
                image = preprocess(case, [model.description])
                (data,), (properties,) = image.data, image.properties
                planes = logit_planes(predictor, torch.from_numpy(data))
                labels = segmentation_of(Output(planes, data.shape[1:], properties, model.description))
                outputs = Outputs(Path(out), model.file_ending, probabilities=False, model=stamp_of_value(name))
                outputs.prepare({}, model.dataset.content, model.plans.plans)
                export(case.name, labels, properties, image.images, model.description, outputs)
            else:
                explain_into(case, None, explainer, ExplainRequest(model=folder, images=(), out=Path(out)))
            seconds.append(time.perf_counter() - start)
    return Cost(statistics.median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, maps)


def in_a_process(function: Callable[..., _Result], *arguments: object) -> _Result:
    """The result of a function that runs in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", choices=IMAGES, default=list(IMAGES), help="kinds (default: all)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, help="(default: both)")
    parser.add_argument("--mirroring", nargs="+", choices=("no", "yes"), default=("no", "yes"), help="(default: both)")
    parser.add_argument("--rounds", type=int, help="times that each is measured (default: 5 small images, 1 brain)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: all cores)")
    options = parser.parse_args(arguments)
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {options.threads} threads"
    lines = [
        f"Networks with random weights; {device}, {platform.machine()}, torch {torch.__version__}. Each cell: seconds "
        "per case (median of five for small images, else once), ratio to the prediction, and peak memory.",
        "",
        f"| image | network | mirroring | {PREDICT} | {ONE_HEAD} | {ALL} | number of maps |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in options.images:
            in_a_process(prepare, root, name, options.threads)
        for row in ROWS:
            name, network, mirror = row
            if (
                name not in options.images
                or network not in options.networks
                or MIRRORED[mirror] not in options.mirroring
            ):
                continue
            rounds = options.rounds or IMAGES[name].rounds
            found = [
                in_a_process(measured, root, *row, way, options.device, options.threads, rounds)
                for way in (PREDICT, ONE_HEAD, ALL)
            ]
            lines.append(_row(*row, found))
            print(lines[-1], flush=True)


def _row(name: str, network: str, mirror: bool, found: Sequence[Cost]) -> str:
    image = IMAGES[name]
    what = f"{' × '.join(str(n) for n in reversed(image.size))}, {image.channels} channel{'s' * (image.channels > 1)}"
    cells = [
        f"{one.seconds:.3g} s{'' if one is found[0] else f', {one.seconds / found[0].seconds:.2f} ×'}, "
        f"{one.peak_mb:.0f} MB"
        for one in found
    ]
    return f"| {what} | {network} | {MIRRORED[mirror]} | {' | '.join(cells)} | {found[-1].maps} |"


if __name__ == "__main__":
    main()
