"""``python -m benchmarks.candidate_gpu_cost``: its networks and its page; tests/network has what it counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import candidate_gpu_cost
from benchmarks.candidate_gpu_cost import NETWORKS, RESULTS, check_same, main, network_of, page
from factorizer_nnunet.core.errors import UserError


def test_every_network_has_the_outputs_of_the_plan() -> None:
    for arm in NETWORKS:
        outputs = network_of(arm, [16, 32, 32])(torch.rand(1, 4, 16, 32, 32))
        assert outputs[0].shape == (1, 4, 16, 32, 32), arm


def test_the_page_relates_bytes_to_the_plain_form() -> None:
    networks = {
        "plain": {"launches": 770, "gb": 20.0, "parameters": 7_000_000},
        "unet": {"launches": 500, "gb": 50.0, "parameters": 30_000_000},
    }
    text = page({"patch": [128, 128, 128], "batch": 2, "torch": "2.14", "networks": networks})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if " M |" in line]
    assert rows == [
        ["Factorizer, plain", "770", "20.0", "1.00", "7.00 M"],
        ["nnU-Net's U-Net", "500", "50.0", "2.50", "30.00 M"],
    ]


def test_the_committed_page_is_that_of_the_committed_results() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == page(results)


@pytest.mark.parametrize(("key", "value"), [("patch", [9, 9, 9]), ("batch", 1), ("torch", "2.9"), ("networks", None)])
def test_networks_of_another_patch_batch_or_torch_are_not_added_to(key: str, value: object) -> None:
    results = {"patch": [128, 128, 128], "batch": 2, "torch": "2.14", "networks": {}}
    check_same(results, results, RESULTS)
    with pytest.raises(UserError, match=f"{key}.*name another file"):
        check_same({**results, key: value}, results, RESULTS)


def test_networks_of_a_file_stay_and_the_plain_form_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "r.json"
    made_up = {"launches": 1, "gb": 2.0, "parameters": 3}
    monkeypatch.setattr(candidate_gpu_cost, "cost", lambda *_: made_up)
    with pytest.raises(SystemExit, match="add it to --networks"):
        main(["--networks", "gated", "--results", str(file)])
    assert not file.exists()
    for arms in (["plain"], ["gated"]):
        main(["--networks", *arms, "--results", str(file)])
    assert json.loads(file.read_text())["networks"] == {"plain": made_up, "gated": made_up}
