"""Train one form on one task for a number of iterations, and score it."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.forms.study import Form, Study
from benchmarks.forms.tasks import Task, load_task, window_starts
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.training.trainer import MAX_GRADIENT_NORM, build_optimizer

BATCH_SIZE = 2


def training_step(form: Form, network: nn.Module, total: int) -> Callable[[Tensor, Tensor], float]:
    """One iteration of the form's recipe: a function of images and labels that returns the loss."""
    if form.stock:  # nnU-Net's recipe
        optimizer = torch.optim.SGD(network.parameters(), form.learning_rate, 0.99, weight_decay=3e-5, nesterov=True)
    else:
        optimizer = build_optimizer(network, form.learning_rate)
    loss = DC_and_CE_loss(
        {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}, {}, dice_class=MemoryEfficientSoftDiceLoss
    )
    warmup = 0 if form.stock else total // 20
    done = 0

    def step(images: Tensor, labels: Tensor) -> float:
        nonlocal done
        for group in optimizer.param_groups:
            group["lr"] = form.learning_rate * _share(form.schedule, done, total, warmup)
        optimizer.zero_grad(set_to_none=True)
        outputs = network(images)
        targets = [F.interpolate(labels[:, None].float(), output.shape[2:], mode="nearest") for output in outputs]
        weights = [0.5**level for level in range(len(outputs))]
        value = DeepSupervisionWrapper(loss, [w / sum(weights) for w in weights])(outputs, targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12 if form.stock else MAX_GRADIENT_NORM)
        optimizer.step()
        done += 1
        return float(value.detach())

    return step


def _share(schedule: str, iteration: int, total: int, warmup: int) -> float:
    """The learning rate over its peak: linear warm-up, then the decay called ``schedule``."""
    rising = min(1.0, (iteration + 1) / max(1, warmup))
    passed = iteration / total
    decay = {
        "poly": max(0.0, 1 - passed) ** 0.9,
        "cosine": (1 + math.cos(math.pi * passed)) / 2,
        "constant": 1.0,
    }
    return rising * decay[schedule]


def relative_cost(study: Study, names: Sequence[str], task: Task, rounds: int) -> dict[str, float]:
    """Cost of an iteration of each form over that of the reference: medians of neighbouring pairs, in CPU time.

    Every form runs on one thread, so CPU time is what a quiet machine takes, whatever else runs.
    """
    steps = {name: _seeded(study, name, task, 0)[1] for name in [study.reference, *names]}
    images, labels = map(torch.as_tensor, task.batch(np.random.default_rng(0), BATCH_SIZE))
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for round_number, name in itertools.product(range(rounds + 1), names):
        times = []
        for step in (steps[study.reference], steps[name]):
            start = time.thread_time()
            step(images, labels)
            times.append(time.thread_time() - start)
        if round_number:  # the first is a warm-up
            ratios[name].append(times[1] / times[0])
    return {name: statistics.median(values) for name, values in ratios.items()}


def _seeded(
    study: Study, name: str, task: Task, seed: int, total: int = 1000
) -> tuple[nn.Module, Callable[[Tensor, Tensor], float]]:
    torch.manual_seed(seed)
    network = study.build(name, task.train[0][0].shape[0], task.classes, task.patch_size)
    return network, training_step(study.forms[name], network, total)


def train(study: Study, name: str, task_name: str, seed: int, iterations: int, data: Path, target: Path) -> None:
    """Train the form ``name``, validate, write the result as JSON to ``target``; in a process of its own."""
    torch.set_num_threads(1)
    task = load_task(task_name, data, study.patches[task_name])
    network, step = _seeded(study, name, task, seed, iterations)
    rng = np.random.default_rng(seed)
    losses = [step(*map(torch.as_tensor, task.batch(rng, BATCH_SIZE))) for _ in range(iterations)]
    result = {
        "form": name,
        "task": task.name,
        "seed": seed,
        "iterations": iterations,
        "dice": validation_dice(network, task),
        "loss": [round(statistics.mean(losses[start : start + 10]), 4) for start in range(0, len(losses), 10)],
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    write_text_atomically(target, json.dumps(result))


@torch.no_grad()
def validation_dice(network: nn.Module, task: Task) -> list[float]:
    """Dice of each foreground class over the validation cases, from overlapping patches; mean over cases."""
    network.eval()
    network.decoder.deep_supervision = False
    scores: list[list[float]] = []
    for image, labels in task.validation:
        logits = torch.zeros(task.classes, *labels.shape)
        axes = (window_starts(size, patch) for size, patch in zip(labels.shape, task.patch_size, strict=True))
        for corner in itertools.product(*axes):
            where = tuple(slice(c, c + p) for c, p in zip(corner, task.patch_size, strict=True))
            logits[(slice(None), *where)] += network(torch.as_tensor(image[(slice(None), *where)])[None])[0].softmax(0)
        prediction = logits.argmax(0).numpy()
        scores.append([_dice(prediction == label, labels == label) for label in range(1, task.classes)])
    return [float(value) for value in np.nanmean(scores, axis=0)]


def _dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    total = prediction.sum() + reference.sum()
    return 2 * float((prediction & reference).sum()) / float(total) if total else float("nan")
