"""Checks before anything is measured: the instruments on layers of known cost, the literal network on its output."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.speed.literal import LiteralFactorizer
from benchmarks.speed.measure import FORWARD, Setting, multiply_adds, peak_bytes
from benchmarks.speed.traffic import layer_traffic
from factorizer_nnunet.network import build_variant

LITERAL_CASES = (("swin", (16, 32, 16)), ("brats_published", (16, 16, 16)), ("swin", (32, 16)))


def check_instruments() -> None:
    """Compare measured multiply-adds, memory and traffic with values known by arithmetic.

    Raises:
        RuntimeError: an instrument is wrong.
    """
    layer, x = nn.Linear(64, 128, bias=False), torch.randn(1000, 64)
    _expect("multiply-adds", multiply_adds(layer, x), 1000 * 64 * 128)
    _expect("peak memory", peak_bytes(layer, x, Setting("cpu", "float32", False), FORWARD), 1000 * 128 * 4)
    for values, in_memory in ((2**22, True), (100, False)):  # the smaller one stays in the cache
        traffic = layer_traffic(nn.Sequential(nn.ReLU()), {"ReLU": "activation"}, torch.randn(values))["activation"]
        _expect(f"bytes moved of {values} values", traffic.moved, in_memory * 8 * values)
        _expect(f"bytes needed of {values} values", traffic.needed, 8 * values)


def _expect(what: str, measured: int, expected: int) -> None:
    if measured != expected:
        raise RuntimeError(f"{what}: measured {measured}, expected {expected}; do not trust this benchmark")


def check_literal() -> None:
    """Compare the literal network with the fast one in float64, with the same weights and random images.

    Raises:
        AssertionError: they differ.
    """
    generator = torch.Generator().manual_seed(0)
    for variant, patch in LITERAL_CASES:
        network = build_variant(variant, 2, 3, patch).double()
        x = torch.randn(1, 2, *patch, dtype=torch.float64, generator=generator)
        with torch.no_grad():
            torch.testing.assert_close(LiteralFactorizer(network, patch)(x), network(x), rtol=1e-9, atol=1e-10)
