"""Processes of one training agree on what a step came to; data are checked once, for all of them."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest
import torch
from plans_example import MakeTrainer, dataset_json, example_plans
from torch import distributed as dist
from torch import multiprocessing

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.names import SPLITS_FILE
from factorizer_nnunet.training import ranks, trainer
from factorizer_nnunet.training.ranks import Verdict, loss_and_verdict, on_first_rank, verdict_of_all_ranks, verdict_on

# What each of two processes found after four steps.
FOUND = (
    (Verdict.CONTINUE, Verdict.STOP, Verdict.CONTINUE, Verdict.DIVERGED),
    (Verdict.CONTINUE, Verdict.CONTINUE, Verdict.STOP, Verdict.STOP),
)


def test_a_process_alone_decides_alone() -> None:
    assert verdict_of_all_ranks(Verdict.STOP, torch.device("cpu")) is Verdict.STOP
    assert on_first_rank(lambda: "its own") == "its own"


def training_of_two(rank: int, folder: str, data: str) -> None:
    """Agree on steps, then do what run_ddp does up to the split: with good data, damaged folds, and half an image."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    agreed = [verdict_of_all_ranks(found, torch.device("cpu")).name for found in FOUND[rank]]
    assert agreed == ["CONTINUE", "STOP", "STOP", "DIVERGED"], "the worst of all counts for all"
    for found, expected in zip(FOUND[rank], agreed, strict=True):
        loss = torch.tensor(math.nan if found is Verdict.DIVERGED else 0.25 + rank)
        value, verdict = loss_and_verdict(loss, stops=found is Verdict.STOP)
        assert verdict.name == expected and verdict_on(value, found is Verdict.STOP) is found
        torch.testing.assert_close(torch.from_numpy(value), loss, equal_nan=True)
    ranks._SECONDS_BETWEEN_WORDS = 0.2
    out, original = Path(folder), trainer.check_training_inputs

    def slowly(*arguments: object) -> None:
        (out / f"checked_{rank}").touch()
        time.sleep(0.7)  # others hear several times that they are to wait
        original(*arguments)

    trainer.check_training_inputs = slowly
    (out / f"split_{rank}.json").write_text(json.dumps(new_trainer().do_split()))
    if rank == 0:
        (Path(data).parent / SPLITS_FILE).write_text('[{"train": ["case_')
    dist.barrier()
    with pytest.raises(UserError, match=r"splits_final.json is not valid JSON"):
        new_trainer()
    if rank == 0:
        (Path(data) / "case_1.b2nd").write_bytes(b"half")
    new_trainer()


def new_trainer() -> trainer.nnUNetTrainerFactorizer:
    return trainer.nnUNetTrainerFactorizer(example_plans(), "3d_fullres", 0, dataset_json(), torch.device("cpu"))


@pytest.mark.slow  # two processes that import nnU-Net
def test_data_and_folds_are_checked_once_and_a_refusal_ends_all_processes(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    data = make_trainer().preprocessed_dataset_folder
    start = time.monotonic()
    with pytest.raises(multiprocessing.ProcessRaisedException) as caught:
        multiprocessing.spawn(training_of_two, (str(tmp_path), data), nprocs=2)
    assert time.monotonic() - start < 120
    messages = [line for line in str(caught.value).splitlines() if "UserError: " in line]
    assert len(messages) == 1 and "the files of 1 case are incomplete (case_1)" in messages[0]
    assert (tmp_path / "checked_0").exists() and not (tmp_path / "checked_1").exists()
    splits = [json.loads((tmp_path / f"split_{rank}.json").read_text()) for rank in range(2)]
    assert splits[0] == splits[1] == [["case_0"], ["case_1"]]
