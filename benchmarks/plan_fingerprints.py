"""Plan sixty data sets and run their networks: ``python -m benchmarks.plan_fingerprints``.

For every fingerprint (``benchmarks.fingerprints``, and a real one with ``--raw DATASET_FOLDER``): the time to plan, and
for every configuration patch, batch, estimated memory and the time of a forward pass of one patch. Writes
docs/plan_fingerprints.md and .json; data sets that are in the latter are not planned again, remove it to begin anew.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.fingerprints import FINGERPRINTS
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.nnunet.environment import create_folders, environment_variables

DOCS = Path(__file__).resolve().parents[1] / "docs" / "measured"


def forward_seconds(settings: object, channels: int, classes: int) -> float:
    """Build the network of a configuration as training does and run it on one patch."""
    import torch

    from factorizer_nnunet.training.building import build_network

    network = build_network(settings, channels, classes, deep_supervision=False).eval()
    image = torch.rand(1, channels, *map(int, settings.patch_size))
    start = time.perf_counter()
    with torch.no_grad():
        logits = network(image)
    if logits.shape != (1, classes, *image.shape[2:]) or not torch.isfinite(logits).all():
        raise RuntimeError(f"logits of {tuple(logits.shape)} for {tuple(image.shape)}")
    return time.perf_counter() - start


def rows_of(dataset: str, size: str | None) -> Iterator[list[str]]:
    """Plan one data set whose fingerprint is there; a row for each configuration."""
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from factorizer_nnunet.network import FactorizerConfig
    from factorizer_nnunet.planning.memory import GB, estimate
    from factorizer_nnunet.planning.planners import planner_for

    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        planner = planner_for(size)(dataset)
        manager = PlansManager(planner.plan_experiment())
    planned = time.perf_counter() - start
    classes = len(planner.dataset_json["labels"])
    for name in manager.available_configurations:
        settings = manager.get_configuration(name)
        channels = determine_num_input_channels(manager, settings, planner.dataset_json)
        config = FactorizerConfig.from_settings(settings.network_arch_init_kwargs)
        total = estimate(config, settings.patch_size, settings.batch_size, channels, classes).total / GB
        if total > planner.UNet_vram_target_GB:
            raise RuntimeError(f"{dataset}, {name}: {total:.2f} GB exceed {planner.UNet_vram_target_GB} GB")
        patch = " × ".join(str(int(v)) for v in settings.patch_size)
        memory = f"{total:.2f} of {planner.UNet_vram_target_GB:g}"
        seconds = f"{forward_seconds(settings, channels, classes):.1f}"
        yield [name, patch, str(settings.batch_size), str(config.num_stages), memory, seconds, f"{planned:.1f}"]


def main() -> None:
    """Plan all and write the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, metavar="FOLDER", help="a real data set in nnU-Net's raw layout, too")
    parser.add_argument("--output", type=Path, default=DOCS, metavar="DIR", help="where the tables go")
    parser.add_argument("--most", type=int, metavar="N", help="end after so many data sets")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        create_folders(root)
        os.environ.update(environment_variables(root, {}))  # before nnU-Net is imported, which reads them
        datasets = []
        for number, fingerprint in enumerate(FINGERPRINTS, 101):
            name = fingerprint.write(root / "nnUNet_raw", root / "nnUNet_preprocessed", number)
            datasets.append((fingerprint.name, name, fingerprint.size))
        if options.raw is not None:
            datasets.insert(0, (f"{options.raw.name} (real)", _real(options.raw, root), None))
        record = options.output / "plan_fingerprints.json"
        rows = json.loads(record.read_text()) if record.is_file() else []
        done = {row[0] for row in rows}
        for title, name, size in [entry for entry in datasets if entry[0] not in done][: options.most]:
            rows += [[title, size or "-", *row] for row in rows_of(name, size)]
            print(" | ".join(rows[-1]), flush=True)
            write_text_atomically(record, json.dumps(rows, indent=1) + "\n")
            write_text_atomically(options.output / "plan_fingerprints.md", _page(rows))


def _real(raw: Path, root: Path) -> str:
    """Link a raw data set and extract its fingerprint."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprint_dataset

    dataset = "Dataset100_Real"
    shutil.copytree(raw, root / "nnUNet_raw" / dataset)
    extract_fingerprint_dataset(100, num_processes=2, verbose=False)
    return dataset


def _page(rows: list[list[str]]) -> str:
    import torch

    slowest = max(float(row[-1]) for row in rows)
    data = len({row[0] for row in rows})
    head = ["data", "size", "configuration", "patch", "batch", "stages", "GB", "forward, s", "planning, s"]
    lines = [
        f"# {data} data sets planned",
        "",
        f"Every configuration built and run forward on one patch in float32 ({torch.get_num_threads()} threads, "
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}); GB is the estimate of the memory "
        f"target, reserve included. Longest planning of a data set: {slowest:.1f} s. Written by "
        "`python -m benchmarks.plan_fingerprints`; other work ran on the machine.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
