"""What the benchmarks compare against is right: the literal network, the tasks, the bookkeeping of runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import explain_cost
from benchmarks.forms.running import finalists
from benchmarks.forms.study import Study
from benchmarks.forms.table import FORMS_STUDY
from benchmarks.forms.tasks import FAR_SIZE, far_context, window_starts
from benchmarks.hippocampus import planned_runs
from benchmarks.measured_part import replace_measured
from benchmarks.planning_study.table import PLANNING_STUDY
from benchmarks.roofline.layers import MERGES, measure_layers
from benchmarks.roofline.steps import steps
from benchmarks.speed.literal import LiteralFactorizer
from benchmarks.speed.measure import Setting, multiply_adds, peak_bytes
from benchmarks.speed.networks import NETWORKS, NotApplicableError
from benchmarks.speed.traffic import layer_traffic
from factorizer_nnunet.network import build_preset


@pytest.mark.parametrize(
    ("preset", "patch"), [("swin", (16, 32, 16)), ("brats_published", (16, 16, 16)), ("swin", (32, 16))]
)
def test_the_literal_network_computes_the_same_numbers(preset: str, patch: tuple) -> None:
    torch.manual_seed(0)
    network = build_preset(preset, 2, 3, patch).double()
    x = torch.randn(1, 2, *patch, dtype=torch.float64)
    torch.testing.assert_close(LiteralFactorizer(network, patch)(x), network(x), rtol=1e-9, atol=1e-10)


def test_the_literal_network_refuses_what_it_cannot_compute() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        LiteralFactorizer(build_preset("swin", 1, 2, (20, 16, 16)), (20, 16, 16))
    with pytest.raises(ValueError, match="not of the published form"):
        LiteralFactorizer(build_preset("default", 1, 2, (16, 16, 16)), (16, 16, 16))


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "SwinUNETR"])
def test_every_network_of_the_speed_benchmark_runs(name: str) -> None:
    network = NETWORKS[name](1, 2, (32, 32))
    with torch.no_grad():
        assert network(torch.randn(1, 1, 32, 32)).shape == (1, 2, 32, 32)


def test_measured_parts_are_replaced_each_between_its_own_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    part = "<!-- measured: begin, written by {0} -->\nold\n<!-- measured: end, {0} -->\n"
    page.write_text("before\n" + part.format("a.py") + "between\n" + part.format("b.py") + "after\n")
    replace_measured(page, "b.py", "new\n")
    assert page.read_text() == (
        "before\n" + part.format("a.py") + "between\n" + part.format("b.py").replace("old", "new") + "after\n"
    )
    with pytest.raises(ValueError, match=r"page.md has no part of c.py: write <!-- measured: begin"):
        replace_measured(page, "c.py", "new\n")


def test_the_drawn_model_and_images_are_explained(tmp_path: Path) -> None:
    image = explain_cost.IMAGES["small"]
    explain_cost.write_images(tmp_path / "small images", image)
    explain_cost.write_model(tmp_path / "small default", image, "default")
    found = explain_cost.in_a_process(
        explain_cost.measured, tmp_path, "small", "default", False, explain_cost.ONE_HEAD, "cpu", 1
    )
    assert found.maps == 1 and found.seconds > 0 and found.peak_mb > 100


def test_what_is_not_installed_or_does_not_fit_is_left_out_with_its_reason() -> None:
    with pytest.raises(NotApplicableError, match="MONAI is not installed|multiples of 32"):
        NETWORKS["SwinUNETR"](1, 2, (32, 24))
    with pytest.raises(NotApplicableError, match="do not divide"):
        NETWORKS["literal swin"](1, 2, (20, 32))


def test_memory_and_multiply_adds_of_a_known_layer() -> None:
    layer, x = torch.nn.Linear(64, 128, bias=False), torch.randn(1000, 64)
    assert multiply_adds(layer, x) == 1000 * 64 * 128
    assert peak_bytes(layer, x, Setting("cpu", "float32", False), "forward") == 1000 * 128 * 4


@pytest.mark.parametrize(("values", "in_memory"), [(2**22, 1), (100, 0)])
def test_traffic_of_a_known_layer(values: int, in_memory: int) -> None:
    network = torch.nn.Sequential(torch.nn.ReLU())
    found = layer_traffic(network, {"ReLU": "activation"}, torch.randn(values))["activation"]
    assert (found.moved, found.needed) == (in_memory * 8 * values, 8 * values)


def test_the_steps_of_a_part_compute_the_same_numbers() -> None:
    results: dict[str, torch.Tensor] = {}
    for step in steps(side=16, batch=2):
        with torch.no_grad():
            result = step.function(*step.inputs)
        if step.change == "as published":
            results[step.part] = result.movedim(1, -1)
        else:
            torch.testing.assert_close(result, results[step.part], rtol=1e-4, atol=1e-4)


def test_layers_of_the_literal_network_and_of_ours_are_the_same() -> None:
    network = build_preset("swin", 4, 3, (16, 16, 16))
    x = torch.randn(1, 4, 16, 16, 16)
    ours, literal = (measure_layers(n, x, rounds=1) for n in (network, LiteralFactorizer(network, (16, 16, 16))))
    assert list(ours) == list(literal) and MERGES in ours
    assert [layer.needed_bytes for layer in ours.values()] == [layer.needed_bytes for layer in literal.values()]
    assert sum(layer.multiply_adds for layer in ours.values()) == multiply_adds(network, x)


@pytest.mark.parametrize(
    ("study", "name"), [(study, name) for study in (FORMS_STUDY, PLANNING_STUDY) for name in study.forms]
)
def test_every_form_of_a_study_builds(study: Study, name: str) -> None:
    outputs = study.build(name, 1, 3, (16, 16, 16))(torch.randn(2, 1, 16, 16, 16))
    assert [tuple(y.shape) for y in outputs] == [
        (2, 3, 16 >> s, 16 >> s, 16 >> s) for s in range(len(study.widths) - 1)
    ]


@pytest.mark.parametrize("study", [FORMS_STUDY, PLANNING_STUDY])
def test_the_forms_that_a_study_names_are_in_it(study: Study) -> None:
    assert {study.reference, *study.always_final} <= set(study.forms)


def test_finalists_are_those_named_and_the_best_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "screening").mkdir()
    for rank, form in enumerate(PLANNING_STUDY.forms):
        run = {"form": form, "task": "hippocampus", "dice": [0.5 + rank / 100, 0.7]}
        (tmp_path / "screening" / f"{rank}.json").write_text(json.dumps(run))
    best = [name for name in reversed(PLANNING_STUDY.forms) if name not in PLANNING_STUDY.always_final]
    assert finalists(PLANNING_STUDY, tmp_path, 2) == [*PLANNING_STUDY.always_final, *best[:2]]


def test_far_lesions_are_like_the_cue_of_their_half() -> None:
    task = far_context(3, 1)
    for image, labels in task.train:
        half = FAR_SIZE[1] // 2
        for start in (0, half):
            part, lesion = image[0, :, start : start + half], labels[:, start : start + half] == 1
            cue = part[..., : FAR_SIZE[2] // 4]
            polarity = np.sign(cue.flat[np.abs(cue).argmax()])
            assert lesion.any() and not lesion[..., : FAR_SIZE[2] // 2].any()
            assert np.sign(part[lesion].mean()) == polarity


def test_patches_cover_an_axis() -> None:
    assert window_starts(24, 24) == [0]
    assert window_starts(50, 24) == [0, 9, 17, 26]


def test_equal_wall_time_means_more_of_our_iterations() -> None:
    runs = planned_runs(400, 2000, [0, 1], 1.6)
    trainers = {run.comparison: run.trainer for run in runs if run.budget == "short"}
    assert trainers["nnU-Net"].endswith("Stock_8epochs_50iters")
    assert trainers["equal iterations"].endswith("Factorizer_8epochs_50iters")
    assert trainers["equal wall time"].endswith("Factorizer_12epochs_50iters")
    assert [run.fold for run in runs if run.budget == "long"] == [0, 0, 0]
