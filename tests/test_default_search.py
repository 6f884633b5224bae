"""``python -m benchmarks.default_search``: its candidates, what it trains, and its page."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from stock_plans import configuration
from study_example import COST, SETUP, made_up
from torch import nn

from benchmarks.default_search import RESULTS, page, parser, planned
from benchmarks.ext_trainer.search_trainers import AVERAGED_STEPS, CosineSchedule, MuonWithAdamW
from benchmarks.real_data.candidates import CANDIDATES, PLAIN
from benchmarks.real_data.data import DATA_SETS
from benchmarks.real_data.networks import with_conv_stem
from benchmarks.real_data.pieces import ITERATIONS, TIME, length, trainer_name
from benchmarks.real_data.workspace import plans_of
from factorizer_nnunet.network.variants import build_network
from factorizer_nnunet.training.schedule import Length

BRATS = DATA_SETS["brats_2mm"]


def plans() -> dict[str, Any]:
    found = {"plans_name": "nnUNetPlans", "configurations": {"c": configuration(3, num_stages=4)}}
    found["configurations"]["c"] |= {"patch_size": [32] * 3, "batch_size": 2}
    return found


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_candidate_differs_from_the_plain_form_in_plans_or_trainer_alone(name: str) -> None:
    arm = CANDIDATES[name]
    own, plain = (plans_of(one, plans(), ["c"])["configurations"]["c"] for one in (arm, PLAIN))
    same_plans = own == plain
    assert same_plans != (arm.plans != PLAIN.plans)
    assert not same_plans or (arm.trainer, arm.suffix) != (PLAIN.trainer, PLAIN.suffix)
    settings, usual = (json.loads(json.dumps(one["architecture"]["arch_kwargs"])) for one in (own, plain))
    assert sum(settings[key] != usual.get(key) for key in settings) <= 2  # blocks of encoder and decoder are two
    entry = own["architecture"]
    network = get_network_from_plans(
        entry["network_class_name"], entry["arch_kwargs"], entry["_kw_requires_import"], 1, 2, deep_supervision=True
    )
    assert [tuple(out.shape[2:]) for out in network(torch.rand(1, 1, 32, 32, 32))] == [(32,) * 3, (16,) * 3, (8,) * 3]


def test_names_of_trainings_and_batches() -> None:
    options = parser().parse_args(["brats_2mm", "--arms", "lr_1e2", "double_batch", "half_batch", "--seeds", "0", "1"])
    pieces = planned(options, ["brats_2mm"], {"brats_2mm/3d_fullres": {"seconds": COST}})
    assert [(piece.arm, piece.seed) for piece in pieces[:4]] == [
        ("lr_1e2", 0),
        ("double_batch", 0),
        ("half_batch", 0),
        ("lr_1e2", 1),
    ]
    assert {piece.fold for piece in pieces} == {1} and {piece.equal for piece in pieces} == {ITERATIONS}
    assert trainer_name(pieces[0], BRATS, COST).endswith("Recipe_15epochs_10iters_lr1e-2_seed0")
    assert [length(piece, BRATS, COST) for piece in pieces[1:3]] == [80, 300]  # 75 in complete epochs
    timed = parser().parse_args(["brats_2mm", "--equal", "time"])
    assert "unet_ours" not in {
        one.arm for one in planned(timed, ["brats_2mm"], {"brats_2mm/3d_fullres": {"seconds": COST}})
    }


def test_the_page_ranks_candidates_and_shows_their_differences() -> None:
    options = parser().parse_args(["brats_2mm", "--arms", "plain", "unet_ours", "plain_everywhere"])
    pieces = planned(options, ["brats_2mm"], {})
    content = {
        "setups": {"brats_2mm/3d_fullres": SETUP},
        "pieces": {piece.key: made_up(piece) for piece in pieces},
    }
    lines = page(content).splitlines()
    rows = [line for line in lines if line.startswith("| ") and "±" not in line and "---" not in line][1:]
    assert [row.split("|")[1].strip() for row in rows] == [
        "Factorizer, plain, NMF everywhere",
        "Factorizer, plain",
        "nnU-Net's U-Net, our recipe",
    ]
    assert "+0.0" in rows[0] and rows[0].split("|")[2].strip() == "1.50" and rows[1].split("|")[6].strip() == ""
    assert [line for line in lines if line.startswith("## ")] == ["## brats_2mm, equal iterations"]


# Recipes


def test_the_committed_page_is_that_of_the_committed_results() -> None:
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == page(content)


def test_the_cosine_falls_from_the_peak_to_0() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))])
    schedule = CosineSchedule(optimizer, 3e-3, Length(10, 10, 5))
    rates = [schedule.rate(iteration) for iteration in range(101)]
    assert max(rates) == rates[5] == 3e-3 and rates[0] == pytest.approx(6e-4) and rates[100] == pytest.approx(0)
    assert rates[5:] == sorted(rates[5:], reverse=True)


def test_muon_updates_matrices_and_adamw_the_rest_and_both_continue() -> None:
    def trained(steps: int, saved_after: int = 0) -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv3d(1, 4, 3), nn.Flatten(), nn.Linear(4, 4))
        optimizer = MuonWithAdamW(network, 0.1, 0.01)
        for step in range(steps):
            if saved_after and step == saved_after:
                state = optimizer.state_dict()
                optimizer = MuonWithAdamW(network, 0.1, 0.01)
                optimizer.load_state_dict(state)
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (step + 1)
            optimizer.zero_grad()
            network(torch.full((1, 1, 3, 3, 3), float(step + 1))).square().sum().backward()
            optimizer.step()
        return [parameter.detach().clone() for parameter in network.parameters()]

    torch.manual_seed(0)
    start = [p.detach().clone() for p in nn.Sequential(nn.Conv3d(1, 4, 3), nn.Flatten(), nn.Linear(4, 4)).parameters()]
    assert all(not torch.equal(before, after) for before, after in zip(start, trained(1), strict=True))
    assert all(torch.equal(one, other) for one, other in zip(trained(4), trained(4, saved_after=2), strict=True))


def test_the_conv_stem_keeps_the_size() -> None:
    network = with_conv_stem(build_network(2, 3, (16, 16, 16)))
    assert network(torch.rand(1, 2, 16, 16, 16)).shape == (1, 3, 16, 16, 16)
    assert AVERAGED_STEPS > 1 and TIME != ITERATIONS
