"""What ``plan`` says about the GPU of the machine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from factorizer_nnunet.planning.gpu_fit import Gpu, gpu_advice, gpu_at_hand


@pytest.mark.parametrize(
    ("memory_gib", "target_gb", "words"),
    [
        (24, 8, ["25.8 GB", "sizes S, M, L;", "for 8 GB"]),
        (80, 40, ["sizes S, M, L, XL;"]),
        (6, 10, ["WARNING", "6.4 GB", "less than the 10 GB", "--gpu-memory-target 6.4"]),
        (4, 3, ["no size"]),
    ],
)
def test_the_advice_names_the_sizes_that_fit(memory_gib: int, target_gb: float, words: list[str]) -> None:
    line = gpu_advice(Gpu("Card", memory_gib * 2**30), target_gb)
    assert all(word in line for word in words) and "Card" in line


def test_the_smallest_of_several_gpus_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.cuda.is_available() or gpu_at_hand() is None
    cards = [
        SimpleNamespace(name="big", total_memory=48 * 10**9),
        SimpleNamespace(name="small", total_memory=11 * 10**9),
    ]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_properties", cards.__getitem__)
    assert gpu_at_hand() == Gpu("small", 11 * 10**9)
