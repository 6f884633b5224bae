"""Sizes, memory targets, and the links to preprocessed data."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fingerprints import Fingerprint
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from planning_example import NAME, NUM_CASES, SHAPE, fingerprint, write_json

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.network import FactorizerConfig
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.integrity import is_preprocessed
from factorizer_nnunet.nnunet.names import parse_plans_name, plans_name
from factorizer_nnunet.nnunet.provenance import raw_sources
from factorizer_nnunet.planning.augmentation_memory import augmentation_bytes
from factorizer_nnunet.planning.description import describe_plans
from factorizer_nnunet.planning.memory import GB, estimate, with_reserve
from factorizer_nnunet.planning.planner import nnUNetPlannerFactorizer, planner_for
from factorizer_nnunet.planning.reuse import link_preprocessed, plans_in, preprocessed_folder
from factorizer_nnunet.planning.sizes import SIZES, per_stage
from factorizer_nnunet.training.checks import check_plans


@pytest.fixture
def measured(raw: Path, folders: Path) -> Path:
    """The data set's folder in ``nnUNet_preprocessed``, with a fingerprint."""
    folder = folders / "nnUNet_preprocessed" / NAME
    write_json(folder / "dataset_fingerprint.json", fingerprint(SHAPE))
    return folder


def test_each_size_is_wider_and_deeper_than_the_one_before() -> None:
    assert [size.memory_target_gb for size in SIZES.values()] == [6, 10, 24, 40]
    sizes = list(SIZES.values())
    for smaller, larger in zip(sizes, sizes[1:], strict=False):
        assert smaller.width < larger.width
        assert smaller.widest_2d < larger.widest_2d and smaller.widest_3d < larger.widest_3d
        blocks = [sum(per_stage(s.encoder_blocks, 6) + per_stage(s.decoder_blocks, 5)) for s in (smaller, larger)]
        assert blocks[0] < blocks[1]


@pytest.mark.parametrize("size", [None, *SIZES])
@pytest.mark.parametrize("variant", [None, "swin", "brats_published"])
def test_names_of_plans_say_what_is_planned(size: str | None, variant: str | None) -> None:
    assert parse_plans_name(plans_name(size, variant)) == (size, variant)


def test_other_names_are_not_ours() -> None:
    assert parse_plans_name("nnUNetPlans") is None
    assert parse_plans_name("nnUNetFactorizerUpstreamPlans") is None


def test_a_size_is_planned_by_name_and_its_target_can_be_replaced(measured: Path) -> None:
    assert cli.main(["plan", "-d", "7", "--size", "M", "--no-preprocess"]) == 0
    plans = json.loads((measured / "nnUNetFactorizerMPlans.json").read_text())
    assert plans["experiment_planner_used"] == "nnUNetPlannerFactorizerM"
    arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    assert arguments["features_per_stage"][0] == SIZES["M"].width
    assert arguments["n_blocks_per_stage"] == per_stage(SIZES["M"].encoder_blocks, len(arguments["strides"]))
    assert planner_for("M")(7).UNet_vram_target_GB == 10
    assert planner_for("M")(7, 3).UNet_vram_target_GB == 3


def test_the_largest_batch_that_fits_is_planned(folders: Path) -> None:
    many = Fingerprint("Many", (140, 170, 138), (1.0, 1.0, 1.0), 1000, 4, 4)
    planner = planner_for()(many.write(folders / "nnUNet_raw", folders / "nnUNet_preprocessed", 22), 12)
    for plan in planner.plan_experiment()["configurations"].values():
        config = FactorizerConfig.from_settings(plan["architecture"]["arch_kwargs"])
        needed = [estimate(config, plan["patch_size"], plan["batch_size"] + more, 4, 4).total for more in (0, 1)]
        assert needed[0] <= 12 * GB < needed[1]


def test_a_cascade_with_many_labels_is_planned_for_its_own_channels(folders: Path) -> None:
    organs = Fingerprint("Organs", (300, 400, 400), (1.5, 1.0, 1.0), 60, 1, 100)
    planner = planner_for()(organs.write(folders / "nnUNet_raw", folders / "nnUNet_preprocessed", 23), 6)
    configurations = planner.plan_experiment()["configurations"]
    cascade = {**configurations["3d_fullres"], **configurations["3d_cascade_fullres"]}
    assert {"patch_size", "architecture"} & set(configurations["3d_cascade_fullres"])
    config = FactorizerConfig.from_settings(cascade["architecture"]["arch_kwargs"])
    assert estimate(config, cascade["patch_size"], cascade["batch_size"], 100, 100).total <= 6 * GB


def test_a_target_too_small_for_any_patch_is_refused_with_the_least_one(measured: Path) -> None:
    message = r"0\.05 GB is too small for 3d_fullres: even 2 patches of .* 0\.5 GB of it for CUDA.*-target (0\.\d+) or"
    with pytest.raises(UserError, match=message) as caught:
        nnUNetPlannerFactorizer(7, 0.05).plan_experiment()
    assert not list(measured.glob("*Plans.json"))
    least = float(re.search(message, str(caught.value)).group(1))
    assert nnUNetPlannerFactorizer(7, least).plan_experiment()["configurations"]["3d_fullres"]["batch_size"] >= 2
    with pytest.raises(UserError, match="too small"):
        nnUNetPlannerFactorizer(7, round(least - 0.01, 2)).plan_experiment()


def preprocessed(folder: Path, shape: tuple[int, ...] = (20, 28, 24)) -> None:
    """Cases of ``shape`` voxels, whose images had 20 x 28 x 24 of 1 mm."""
    folder.mkdir()
    data = np.zeros((1, *shape), np.float32)
    properties = {"spacing": [1.0, 1.0, 1.0], "shape_after_cropping_and_before_resampling": (20, 28, 24)}
    for case in range(NUM_CASES):
        nnUNetDatasetBlosc2.save_case(data, data.astype(np.int8), properties, str(folder / f"case_{case}"))


def found_data(measured: Path, plans: dict) -> Path | None:
    """The folder whose files can be used for 3d_fullres of new plans."""
    planner = nnUNetPlannerFactorizer(7)
    raw = Path(planner.raw_dataset_folder)
    description = DatasetJson.read(raw / "dataset.json")
    sources = raw_sources(raw, description, description.training_cases(raw).values())
    return preprocessed_folder(plans, "3d_fullres", plans_in(measured), measured, planner.dataset, sources)


def test_complete_data_with_equal_settings_are_linked(measured: Path) -> None:
    nnUNetPlannerFactorizer(7).plan_experiment()
    source = measured / "nnUNetFactorizerPlans_3d_fullres"
    preprocessed(source)
    assert found_data(measured, planner_for("M")(7).plan_experiment()) == source
    target = measured / "nnUNetFactorizerMPlans_3d_fullres"
    preprocessed(target, (9, 9, 9))  # of plans before
    link_preprocessed(source, target)
    assert sorted(f.name for f in target.iterdir()) == sorted(f.name for f in source.iterdir())
    assert all(file.samefile(target / file.name) for file in source.iterdir())
    assert is_preprocessed(target.with_name(f"{target.name}.outdated-1"), "case_0")
    shutil.rmtree(source)  # as nnU-Net does before it preprocesses again
    assert nnUNetDatasetBlosc2(str(target)).load_case("case_0")[0].shape == (1, 20, 28, 24)


@pytest.mark.parametrize(
    "change",
    ["case missing", "cut off", "older than raw", "older than labels", "other spacing", "other intensities", "edited"],
)
def test_data_that_are_incomplete_or_different_are_not_linked(raw: Path, measured: Path, change: str) -> None:
    nnUNetPlannerFactorizer(7).plan_experiment()
    folder = measured / "nnUNetFactorizerPlans_3d_fullres"
    # Plans may have been edited, data been made, and the edit been taken back.
    preprocessed(folder, (10, 14, 12) if change == "edited" else (20, 28, 24))
    plans_file = measured / "nnUNetFactorizerPlans.json"
    plans = json.loads(plans_file.read_text())
    if change == "case missing":
        (folder / "case_1.pkl").unlink()
    elif change == "cut off":
        (folder / "case_1.pkl").write_bytes(b"en")
    elif change == "older than raw":
        (raw / "labelsTr" / "case_1.nii.gz").touch()
    elif change == "older than labels":
        (raw / "dataset.json").touch()
    elif change == "other spacing":
        plans["configurations"]["3d_fullres"]["spacing"] = [1, 1, 2]
    elif change == "other intensities":
        plans["foreground_intensity_properties_per_channel"]["0"]["mean"] = 7
    write_json(plans_file, plans)
    new = planner_for("M")(7).plan_experiment()
    (measured / "nnUNetFactorizerMPlans.json").unlink()
    assert found_data(measured, new) is None


def test_a_folder_that_other_plans_fill_differently_is_left_alone(measured: Path) -> None:
    plans = nnUNetPlannerFactorizer(7).plan_experiment()
    preprocessed(measured / "nnUNetFactorizerPlans_3d_fullres")
    other = json.loads(json.dumps(plans, default=list))
    other["configurations"]["3d_fullres"]["spacing"] = [2, 2, 2]
    write_json(measured / "other.json", other)
    assert found_data(measured, plans) is None


def test_plans_that_are_there_are_shown_only_without_options_that_would_change_them(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nnUNetPlannerFactorizer(7).plan_experiment()
    with pytest.raises(SystemExit):
        cli.main(["plan", "-d", "7", "--show", "--gpu-memory-target", "8"])
    assert "exists and is only shown" in capsys.readouterr().err


@pytest.mark.parametrize("regions", [False, True])
def test_augmentation_on_the_gpu_counts_for_those_who_ask_for_it(
    folders: Path, monkeypatch: pytest.MonkeyPatch, regions: bool
) -> None:
    many = Fingerprint("Many", (140, 170, 138), (1.0, 1.0, 1.0), 1000, 4, 4)
    dataset = many.write(folders / "nnUNet_raw", folders / "nnUNet_preprocessed", 23)
    monkeypatch.setattr(DatasetJson, "has_regions", regions)
    usual = planner_for()(dataset).plan_experiment()["configurations"]["3d_fullres"]
    monkeypatch.setenv("nnUNet_factorizer_augmentation", "device")
    plan = planner_for()(dataset).plan_experiment()["configurations"]["3d_fullres"]
    config = FactorizerConfig.from_settings(plan["architecture"]["arch_kwargs"])
    step = estimate(config, plan["patch_size"], plan["batch_size"], 4, 4).step
    more = augmentation_bytes(plan["patch_size"], plan["batch_size"], 4, 0, 4 if regions else 1)
    assert with_reserve(step + more) <= 8 * GB
    assert math.prod(plan["patch_size"]) * plan["batch_size"] < math.prod(usual["patch_size"]) * usual["batch_size"]
    monkeypatch.setenv("nnUNet_factorizer_augmentation", "gpu")
    with pytest.raises(UserError, match="is 'gpu'; set it to one of auto, device, workers"):
        planner_for()(dataset)


def test_plans_are_shown_as_a_table(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "-d", "7", "--no-preprocess", "--show", "-c", "3d_fullres"]) == 0  # planned, then shown
    capsys.readouterr()
    before = (measured / "nnUNetFactorizerPlans.json").stat().st_mtime_ns
    files = sorted(measured.iterdir())
    assert cli.main(["plan", "-d", "7", "--show", "-c", "3d_fullres"]) == 0
    out = capsys.readouterr().out
    assert (measured / "nnUNetFactorizerPlans.json").stat().st_mtime_ns == before
    assert sorted(measured.iterdir()) == files
    assert re.search(r"^0 +20 × 28 × 24 +1 × 1 × 1 +32 +1 \+ 1 +no", out, re.MULTILINE)
    assert re.search(r"^2 .* 128 +1 +yes +\d+ × \d+ × \d+ ", out, re.MULTILINE)
    assert re.search(r"memory: \d+\.\d+ GB required", out)
    augmentation = r"with nnUNet_factorizer_augmentation=device, augmentation on the GPU needs up to \d+\.\d+ GB more"
    assert re.search(augmentation, out)
    assert "nnU-Net's plan (planned only for this comparison)" in out
    assert re.search(r"ours costs 0\.\d+ of that per patch, 0\.\d+ per voxel", out)


def test_edited_plans_that_build_no_network_are_reported_when_shown(measured: Path) -> None:
    nnUNetPlannerFactorizer(7).plan_experiment()
    plans_file = measured / "nnUNetFactorizerPlans.json"
    plans = json.loads(plans_file.read_text())
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["mlp_ratio"] = -1
    write_json(plans_file, plans)
    with pytest.raises(UserError, match=r"Plans\.json, configuration 2d: .*invalid mlp_ratio=-1"):
        describe_plans(plans_file, ["2d"])
    with pytest.raises(UserError, match=r"has none of 3d_lowres: choose from 2d, 3d_fullres"):
        describe_plans(plans_file, ["3d_lowres"])


def test_moved_plans_train_on_the_other_data_set(raw: Path, measured: Path) -> None:
    from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import (
        move_plans_between_datasets,
    )

    planner_for("M")(7).plan_experiment()
    other = raw.with_name("Dataset008_Other")
    shutil.copytree(raw, other)
    target = measured.with_name(other.name)
    write_json(target / "dataset.json", json.loads((other / "dataset.json").read_text()))
    move_plans_between_datasets(7, 8, "nnUNetFactorizerMPlans", "nnUNetFactorizerMPlans_moved")
    plans = json.loads((target / "nnUNetFactorizerMPlans_moved.json").read_text())
    settings = check_plans(plans, "3d_fullres", json.loads((target / "dataset.json").read_text()))
    assert settings.data_identifier == "nnUNetFactorizerMPlans_moved_3d_fullres"
    assert settings.network_arch_init_kwargs["features_per_stage"][0] == SIZES["M"].width
