"""Processes of one training agree on what a step came to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from factorizer_nnunet.training.ranks import Verdict, verdict_of_all_ranks

# What each of two processes found after four steps.
FOUND = (
    (Verdict.CONTINUE, Verdict.STOP, Verdict.CONTINUE, Verdict.DIVERGED),
    (Verdict.CONTINUE, Verdict.CONTINUE, Verdict.STOP, Verdict.STOP),
)


def one_of_two(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    agreed = [verdict_of_all_ranks(found, torch.device("cpu")).name for found in FOUND[rank]]
    (Path(folder) / f"{rank}.txt").write_text(" ".join(agreed))
    dist.destroy_process_group()


@pytest.mark.slow  # two processes that import torch
def test_the_worst_of_all_counts_for_all(tmp_path: Path) -> None:
    multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        assert (tmp_path / f"{rank}.txt").read_text() == "CONTINUE STOP STOP DIVERGED"


def test_a_process_alone_decides_alone() -> None:
    assert verdict_of_all_ranks(Verdict.STOP, torch.device("cpu")) is Verdict.STOP
