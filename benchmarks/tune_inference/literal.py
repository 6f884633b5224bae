"""What an iteration of the NMF costs: by the literal algorithm of the paper, and by Gram matrices."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from benchmarks.speed.literal import LiteralFactorizer
from factorizer_nnunet.network import build_preset

ITERATIONS = (5, 1)
LITERAL, GRAM = "literal", "gram"


def measure_iterations(patch: Sequence[int], rounds: int) -> dict[str, dict[int, float]]:
    """Median seconds of a forward pass of the published form, by way of computing and iterations, taking turns.

    Args:
        patch: voxels per axis.
        rounds: passes of each.
    """
    network = build_preset("swin", 1, 3, patch).eval()
    literal = {}
    for num_iters in ITERATIONS:
        network.use(num_iters)
        literal[num_iters] = LiteralFactorizer(network, patch).eval()
    image = torch.randn(1, 1, *patch)
    taken: dict[str, dict[int, list[float]]] = {way: {n: [] for n in ITERATIONS} for way in (LITERAL, GRAM)}
    with torch.inference_mode():
        for _ in range(rounds + 1):  # the first one warms up
            for num_iters in ITERATIONS:
                network.use(num_iters)
                for way, run in ((LITERAL, literal[num_iters]), (GRAM, network)):
                    begin = time.perf_counter()
                    run(image)
                    taken[way][num_iters].append(time.perf_counter() - begin)
    return {way: {n: statistics.median(seconds[1:]) for n, seconds in each.items()} for way, each in taken.items()}
