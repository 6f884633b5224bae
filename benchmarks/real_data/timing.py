"""What an iteration of each arm costs, with loading and augmentation: all arms take turns in one process.

    python -m benchmarks.real_data.timing DATASET CONFIGURATION -o FILE --trainings TRAINER:PLANS …

Started by ``benchmarks.real_data``, with nnU-Net's variables set: on a shared machine, turns see the same load.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.run.run_training import get_trainer_from_args

from factorizer_nnunet.core.atomic_files import write_text_atomically


def measure(trainers: Sequence[Any], rounds: int) -> list[float]:
    """Median seconds of a training step with its batch: CPU time of this process, or on a GPU the time of day.

    In each round all draw the same patches and augmentations, whose cost varies much.
    """
    times: list[list[float]] = [[] for _ in trainers]
    for number in range(rounds + 1):
        for trainer, own in zip(trainers, times, strict=True):
            random.seed(number)
            np.random.seed(number)
            torch.manual_seed(number)
            now = time.process_time if trainer.device.type == "cpu" else time.perf_counter
            start = now()
            trainer.train_step(next(trainer.dataloader_train))
            own.append(now() - start)
            print(f"{type(trainer).__name__}, {trainer.plans_manager.plans_name}: {own[-1]:.2f} s", flush=True)
    return [statistics.median(own[1:]) for own in times]  # the first round compiles and tunes


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="such as Dataset501_BraTS2mm")
    parser.add_argument("configuration", help="such as 3d_fullres")
    parser.add_argument("--trainings", nargs="+", metavar="TRAINER:PLANS", required=True)
    parser.add_argument("--rounds", type=int, default=9, help="(default %(default)s)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    trainers = []
    for training in options.trainings:
        name, plans = training.split(":")
        device = torch.device(options.device)
        trainer = get_trainer_from_args(options.dataset, options.configuration, 0, name, plans, device=device)
        trainer.disable_checkpointing = True
        trainer.on_train_start()
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        trainers.append(trainer)
    write_text_atomically(options.output, json.dumps(measure(trainers, options.rounds)))


if __name__ == "__main__":
    main()
