"""Planning: bad input is reported before anything is written, good input gives plans for the stock commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from in_process import use_threads
from planning_example import (
    NAME,
    NUM_CASES,
    SHAPE,
    fingerprint,
    write_image,
    write_json,
)

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.network import PLANNED_FORMS, VARIANTS, build_variant
from factorizer_nnunet.nnunet.environment import AUGMENTATION_VARIABLE
from factorizer_nnunet.planning.dataset import configurations_with_own_data, next_command, plan_dataset
from factorizer_nnunet.planning.planner import nnUNetPlannerFactorizer
from factorizer_nnunet.planning.reuse import outdated_configurations


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_unset_and_missing_folders_are_reported(
    raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    monkeypatch.delenv(variable)
    assert cli.main(["plan", "-d", "7"]) == 2
    assert f"error: {variable} is not set" in capsys.readouterr().err
    monkeypatch.setenv(variable, str(raw / "gone"))
    assert cli.main(["plan", "-d", "7"]) == 2
    assert "gone, which does not exist" in capsys.readouterr().err
    assert not (raw / "gone").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--gpu-memory-target", "0"], "GPU memory target is 0.0 GB"),
        (["--gpu-memory-target", "-2"], "GPU memory target is -2.0 GB"),
        (["--gpu-memory-target", "nan"], "GPU memory target is nan GB"),
        (["--gpu-memory-target", "1e300"], "GPU memory target is 1e+300 GB"),
        (["--variant", "unet"], "unknown variant 'unet': choose from default, plain, everywhere, swin"),
        (["--size", "XXL"], "unknown size 'XXL': choose from S, M, L, XL"),
        (["--size", "M", "--variant", "swin"], "--size M and --variant swin exclude each other"),
        (["--preset", "XXL"], "unknown size 'XXL'"),
        (["--network", "unet"], "unknown variant 'unet'"),
        (["--size", "XXL", "--show"], "unknown size 'XXL'"),
        (["-c", "2d", "3d"], "unknown configuration '3d': choose from 2d, 3d_fullres, 3d_lowres, 3d_cascade_fullres"),
        (["--plans-name", "a/b"], "'a/b' cannot name a plans file"),
        (["--plans-name", "x.json"], "without .json"),
        (["--plans-name", ""], "'' cannot name a plans file"),
    ],
)
def test_bad_arguments_are_reported_and_nothing_is_written(
    raw: Path, folders: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert cli.main(["plan", "-d", "7", *argv]) == 2
    assert message in capsys.readouterr().err
    assert list((folders / "nnUNet_preprocessed").rglob("*")) == []


def test_a_wrong_place_of_augmentation_is_refused_before_anything_is_written(
    raw: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AUGMENTATION_VARIABLE, "gpu")
    with pytest.raises(UserError, match=f"{AUGMENTATION_VARIABLE} is 'gpu'; set it to one of auto, device, workers"):
        plan_dataset(7, ["2d"])
    assert list((folders / "nnUNet_preprocessed").rglob("*")) == []


@pytest.mark.parametrize(
    ("options", "names"),
    [("--size M --preset L", "--size M and --preset L"), ("--variant swin --network local", "--network local")],
)
def test_an_option_under_two_names_must_have_one_value(
    raw: Path, capsys: pytest.CaptureFixture[str], options: str, names: str
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["plan", "-d", "7", *options.split()])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert names in message and "mean the same option" in message


def test_old_options_are_accepted_but_not_shown(raw: Path, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(folders / "nnUNet_preprocessed" / NAME / "dataset_fingerprint.json", fingerprint(SHAPE))
    for old, new, name in (("--preset M", "--size M", "MPlans"), ("--network swin", "--variant swin", "Plans_swin")):
        written = folders / "nnUNet_preprocessed" / NAME / f"nnUNetFactorizer{name}.json"
        for options in (old, f"{old} {new}"):
            assert cli.main(["plan", "-d", "7", "--no-preprocess", *options.split()]) == 0
            assert written.is_file()
            written.unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["plan", "--help"])
    shown = capsys.readouterr().out
    assert "--size" in shown and "--variant" in shown and "--preset" not in shown and "--network" not in shown


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"experiment_planner_used": "ExperimentPlanner", "configurations": {}},
            r"made by ExperimentPlanner.*--plans-name",
        ),
        ({"configurations": {}}, r"made by another planner.*--plans-name"),
        ({"experiment_planner_used": "nnUNetPlannerFactorizer"}, r"has no configurations"),
        (
            {"experiment_planner_used": "nnUNetPlannerFactorizer", "configurations": {"2d": 7}},
            r"configuration 2d: must be an object.*Remove .* or choose another name",
        ),
    ],
)
def test_plans_of_others_are_not_overwritten(raw: Path, folders: Path, content: dict, message: str) -> None:
    plans_file = folders / "nnUNet_preprocessed" / NAME / "Mine.json"
    write_json(plans_file, content)
    with pytest.raises(UserError, match=message):
        plan_dataset(7, plans_name="Mine")
    assert json.loads(plans_file.read_text()) == content


def test_a_name_of_stock_plans_is_refused(raw: Path, folders: Path) -> None:
    with pytest.raises(UserError, match="nnUNetPlans is a name of nnU-Net's own planners"):
        plan_dataset(7, plans_name="nnUNetPlans")
    assert list((folders / "nnUNet_preprocessed").rglob("*")) == []


def test_half_written_plans_are_reported(raw: Path, folders: Path) -> None:
    plans_file = folders / "nnUNet_preprocessed" / NAME / "nnUNetFactorizerPlans.json"
    plans_file.parent.mkdir()
    plans_file.write_text('{"dataset_name":')
    with pytest.raises(UserError, match=r"nnUNetFactorizerPlans\.json is not valid JSON.*Remove"):
        plan_dataset(7)


def test_a_fingerprint_of_other_data_is_reported(raw: Path, folders: Path) -> None:
    fingerprint_file = folders / "nnUNet_preprocessed" / NAME / "dataset_fingerprint.json"
    write_json(fingerprint_file, fingerprint((20, 28, 24), cases=9))
    with pytest.raises(UserError, match=r"describes 9 cases of 2 channels, but .* has 3 of 2.*--clean"):
        plan_dataset(7)
    write_json(fingerprint_file, {**fingerprint((20, 28, 24)), "spacings": None})
    with pytest.raises(UserError, match=r"fingerprint\.json: spacings is missing or of the wrong type.*--clean"):
        plan_dataset(7)
    write_json(fingerprint_file, {**fingerprint((20, 28, 24)), "spacings": [[-1, 1, 1]] * 3})
    with pytest.raises(UserError, match=r"spacings contains non-positive sizes: \[-1, 1, 1\].*--clean"):
        plan_dataset(7)
    fingerprint_file.write_text("{")
    with pytest.raises(UserError, match=r"dataset_fingerprint\.json is not valid JSON.*--clean"):
        plan_dataset(7)


def planner(folders: Path, shape: tuple[int, int, int], **arguments: object) -> nnUNetPlannerFactorizer:
    write_json(folders / "nnUNet_preprocessed" / NAME / "dataset_fingerprint.json", fingerprint(shape))
    return nnUNetPlannerFactorizer(7, **arguments)


def built_network(plans_file: Path, configuration: str) -> tuple[object, object]:
    """The network that nnU-Net itself builds from the plans, and the configuration."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    chosen = PlansManager(str(plans_file)).get_configuration(configuration)
    network = get_network_from_plans(
        chosen.network_arch_class_name,
        chosen.network_arch_init_kwargs,
        chosen.network_arch_init_kwargs_req_import,
        2,
        2,
        deep_supervision=False,
    )
    return network, chosen


def test_plans_keep_nnunets_choice_and_build_a_factorizer(raw: Path, folders: Path) -> None:
    import torch
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    from factorizer_nnunet.network import Factorizer

    ours = planner(folders, SHAPE).plan_experiment()
    stock = ExperimentPlanner(7).plan_experiment()
    assert list(ours["configurations"]) == list(stock["configurations"]) == ["2d", "3d_fullres"]
    plans_file = folders / "nnUNet_preprocessed" / NAME / "nnUNetFactorizerPlans.json"
    for name, plan in ours["configurations"].items():
        expected = stock["configurations"][name]
        differing = {key for key in expected if plan[key] != expected[key]}
        assert differing == {"architecture", "data_identifier"}
        assert plan["data_identifier"] == f"nnUNetFactorizerPlans_{name}"
        network, chosen = built_network(plans_file, name)
        assert isinstance(network, Factorizer)
        with torch.no_grad():
            logits = network(torch.rand(1, 2, *chosen.patch_size))
        assert logits.shape == (1, 2, *chosen.patch_size)


@pytest.mark.parametrize("size", [None, "M"])
@pytest.mark.parametrize("form", ["everywhere", "plain"])
def test_other_forms_are_planned_as_the_default_is(raw: Path, folders: Path, form: str, size: str | None) -> None:
    write_json(folders / "nnUNet_preprocessed" / NAME / "dataset_fingerprint.json", fingerprint(SHAPE))
    own, default = (plan_dataset(7, size=size, variant=variant, preprocess=False) for variant in (form, None))
    assert own.name == f"nnUNetFactorizer{size or ''}Plans_{form}.json"
    for configuration in ("2d", "3d_fullres"):
        (built, _), (usual, _) = (built_network(file, configuration) for file in (own, default))
        stages = usual.config.num_stages
        assert usual.config.nmf_stages != (True,) * stages
        changes = {
            "everywhere": {"nmf_stages": (True,) * stages},
            "plain": {"nmf_output": "add", "n_conv_per_stage": None},
        }
        assert built.config == replace(usual.config, **changes[form])


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in PLANNED_FORMS])
def test_every_variant_is_planned_by_name(raw: Path, folders: Path, variant: str) -> None:
    import torch

    write_json(folders / "nnUNet_preprocessed" / NAME / "dataset_fingerprint.json", fingerprint(SHAPE))
    plans_file = plan_dataset(7, variant=variant, preprocess=False)
    assert plans_file.name == f"nnUNetFactorizerPlans_{variant}.json"
    for configuration in ("2d", "3d_fullres"):
        built, chosen = built_network(plans_file, configuration)
        assert built.config == build_variant(variant, 2, 2, chosen.patch_size).config
        with torch.no_grad():
            assert built(torch.rand(1, 2, *chosen.patch_size)).shape == (1, 2, *chosen.patch_size)
    assert plan_dataset(7, variant=variant, preprocess=False) == plans_file  # its own plans may be made again


def test_a_large_dataset_gets_a_cascade_of_factorizers(raw: Path, folders: Path) -> None:
    plans = planner(folders, (160, 160, 160), gpu_memory_target_in_gb=1).plan_experiment()
    assert set(plans["configurations"]) == {"2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"}
    plans_file = folders / "nnUNet_preprocessed" / NAME / "nnUNetFactorizerPlans.json"
    _, cascade = built_network(plans_file, "3d_cascade_fullres")
    assert cascade.network_arch_class_name == "factorizer_nnunet.network.Factorizer"
    assert cascade.previous_stage_name == "3d_lowres"
    assert cascade.data_identifier == "nnUNetFactorizerPlans_3d_fullres"


def test_custom_configurations_survive_planning_again_and_no_draft_is_left(raw: Path, folders: Path) -> None:
    plans_file = folders / "nnUNet_preprocessed" / NAME / "nnUNetFactorizerPlans.json"
    planner(folders, SHAPE).plan_experiment()
    plans = json.loads(plans_file.read_text())
    plans["configurations"]["mine"] = {"inherits_from": "2d", "batch_size": 5}
    plans["configurations"]["2d"]["batch_size"] = 99
    write_json(plans_file, plans)
    planner(folders, SHAPE).plan_experiment()
    again = json.loads(plans_file.read_text())["configurations"]
    assert again["mine"] == {"inherits_from": "2d", "batch_size": 5}
    assert again["2d"]["batch_size"] != 99
    assert {path.name for path in plans_file.parent.iterdir()} == {
        "dataset.json",
        "dataset_fingerprint.json",
        "nnUNetFactorizerPlans.json",
        "nnUNetFactorizerPlans.previous.json",
    }


def test_edited_plans_are_kept_when_planning_again(
    raw: Path, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(folders / "nnUNet_preprocessed" / NAME / "dataset_fingerprint.json", fingerprint(SHAPE))
    plans_file = plan_dataset(7, preprocess=False)
    plan_dataset(7, preprocess=False)
    assert not plans_file.with_suffix(".previous.json").exists()  # nothing had changed
    edited = json.loads(plans_file.read_text())
    edited["configurations"]["2d"]["architecture"]["arch_kwargs"]["num_iters"] = 9
    write_json(plans_file, edited)
    capsys.readouterr()
    plan_dataset(7, preprocess=False)
    kept = plans_file.with_suffix(".previous.json")
    assert f"perhaps edited; they are kept in {kept}" in capsys.readouterr().out
    assert json.loads(kept.read_text()) == edited
    write_json(plans_file, {**edited, "mine": 1})
    plan_dataset(7, preprocess=False)
    assert json.loads(kept.read_text()) == edited
    assert plans_file.with_suffix(".previous2.json").is_file()


def test_a_truncated_image_is_reported(raw: Path, folders: Path) -> None:
    image = raw / "imagesTr" / "case_1_0001.nii.gz"
    image.write_bytes(image.read_bytes()[:3000])
    with pytest.raises(UserError, match=rf"{image}: is a truncated or damaged gzip file .*Replace the file"):
        plan_dataset(7)
    assert list((folders / "nnUNet_preprocessed").rglob("*")) == []


def test_an_interrupted_save_leaves_the_old_plans(raw: Path, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans_file = folders / "nnUNet_preprocessed" / NAME / "nnUNetFactorizerPlans.json"
    write_json(plans_file, {"configurations": {}})
    before = plans_file.read_text()

    def cut_short(self: Path, data: str, encoding: str) -> None:
        with self.open("w") as file:
            file.write(data[:10])
        raise KeyboardInterrupt

    unsaved = planner(folders, SHAPE)
    monkeypatch.setattr(Path, "write_text", cut_short)
    with pytest.raises(KeyboardInterrupt):
        unsaved.save_plans({"configurations": {"2d": {}}})
    assert plans_file.read_text() == before
    assert not list(plans_file.parent.glob("*.tmp")) + list(plans_file.parent.glob(".*"))


def test_who_reads_the_plans_while_they_are_saved_sees_complete_old_ones(raw: Path, folders: Path) -> None:
    plans_file = folders / "nnUNet_preprocessed" / NAME / "nnUNetFactorizerPlans.json"
    write_json(plans_file, {"configurations": {}})
    with plans_file.open() as reader:
        planner(folders, SHAPE).save_plans({"configurations": {"2d": {}}})
        assert json.load(reader) == {"configurations": {}}
    assert json.loads(plans_file.read_text()) == {"configurations": {"2d": {}}}


def test_outdated_are_changed_configurations_with_data(tmp_path: Path) -> None:
    (tmp_path / "data_2d").mkdir()
    (tmp_path / "data_3d").mkdir()
    network = {"architecture": {}}
    old = {
        "transpose_forward": [0, 1, 2],
        "configurations": {
            "2d": {"data_identifier": "data_2d", "spacing": [1, 1], **network},
            "3d_fullres": {"data_identifier": "data_3d", "spacing": [1, 1, 1], **network},
            "3d_lowres": {"data_identifier": "data_none", "spacing": [2, 2, 2], **network},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres"},
        },
    }
    new = json.loads(json.dumps(old))
    assert outdated_configurations(None, new, tmp_path) == []
    assert outdated_configurations(old, new, tmp_path) == []
    new["configurations"]["2d"]["patch_size"] = [32, 32]  # does not change the data
    assert outdated_configurations(old, new, tmp_path) == []
    new["configurations"]["2d"]["spacing"] = [2, 2]
    new["configurations"]["3d_lowres"]["spacing"] = [3, 3, 3]
    assert outdated_configurations(old, new, tmp_path) == ["2d"]
    new["transpose_forward"] = [2, 0, 1]
    assert outdated_configurations(old, new, tmp_path) == ["2d", "3d_fullres"]


@pytest.mark.parametrize(
    ("wanted", "configuration"),
    [(["2d", "3d_fullres", "3d_lowres"], "3d_fullres"), (["2d"], "2d"), (["mine"], "mine")],
)
def test_next_command_names_a_configuration_that_exists(tmp_path: Path, wanted: list[str], configuration: str) -> None:
    plans_file = tmp_path / NAME / "P.json"
    write_json(plans_file, {"configurations": {"2d": {}, "3d_fullres": {}, "mine": {}}})
    assert next_command(plans_file, wanted) == f"nnUNetv2_train 7 {configuration} 0 -tr nnUNetTrainerFactorizer -p P"
    assert next_command(plans_file, ["3d_lowres"]) is None


def test_next_command_of_few_cases_trains_all_of_them(tmp_path: Path) -> None:
    plans_file = tmp_path / NAME / "P.json"
    write_json(plans_file, {"configurations": {"2d": {}}})
    for cases, fold in ((4, "all"), (5, "0")):
        write_json(tmp_path / NAME / "dataset_fingerprint.json", fingerprint(SHAPE, cases))
        assert f"2d {fold} -tr" in str(next_command(plans_file, ["2d"]))
    write_json(tmp_path / NAME / "dataset_fingerprint.json", fingerprint(SHAPE, 3))
    write_json(tmp_path / NAME / "splits_final.json", [])
    assert "2d 0 -tr" in str(next_command(plans_file, ["2d"])), "the user has made folds"


def test_next_command_of_a_cascade_is_its_first_stage(tmp_path: Path) -> None:
    plans_file = tmp_path / NAME / "P.json"
    write_json(plans_file, {"configurations": {"3d_lowres": {}, "3d_fullres": {}, "3d_cascade_fullres": {}}})
    command = next_command(plans_file, ["3d_cascade_fullres"])
    assert command == "nnUNetv2_train 7 3d_lowres 0 -tr nnUNetTrainerFactorizer -p P"


def test_a_cascade_stands_for_the_configurations_whose_data_it_uses() -> None:
    planned = configurations_with_own_data(["2d", "3d_cascade_fullres", "3d_fullres"])
    assert planned == ["2d", "3d_lowres", "3d_fullres"]


@pytest.mark.slow
def test_plan_command_from_raw_to_preprocessed_and_again(
    raw: Path, folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In threads; the tutorials run the same steps in processes."""
    use_threads(monkeypatch)
    arguments = ["plan", "-d", NAME, "-c", "3d_fullres", "3d_lowres", "-np", "1"]
    assert cli.main([*arguments, "--verify-dataset-integrity"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("nnUNetv2_train 7 3d_fullres all -tr nnUNetTrainerFactorizer -p nnUNetFactorizerPlans\n")
    assert "Configuration 3d_lowres not found" in out
    assert "NOTE" not in out
    data = folders / "nnUNet_preprocessed" / NAME
    assert sorted(p.name for p in (data / "nnUNetFactorizerPlans_3d_fullres").glob("*.b2nd")) == sorted(
        name for case in range(NUM_CASES) for name in (f"case_{case}.b2nd", f"case_{case}_seg.b2nd")
    )
    assert not (data / "nnUNetFactorizerPlans_2d").exists()

    assert cli.main([*arguments, "--size", "M"]) == 0  # another network, the same data
    source, linked = (data / f"{plans}_3d_fullres" for plans in ("nnUNetFactorizerPlans", "nnUNetFactorizerMPlans"))
    out = capsys.readouterr().out
    assert f"3d_fullres: preprocessed data with equal settings are linked from {source}" in out
    assert all(file.samefile(linked / file.name) for file in source.iterdir())
    assert cli.main([*arguments, "--size", "M"]) == 0
    assert f"3d_fullres: the preprocessed data in {linked} are complete and kept" in capsys.readouterr().out
    assert all(file.samefile(linked / file.name) for file in source.iterdir())


@pytest.mark.slow
def test_labels_that_nnunet_does_not_accept_are_reported_before_writing(
    raw: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_threads(monkeypatch)
    write_image(raw / "labelsTr" / "case_1.nii.gz", np.full(SHAPE, 9, np.uint8))
    with pytest.raises(
        UserError, match=r"Dataset007_Tiny does not pass nnU-Net's integrity check: .*unexpected labels"
    ):
        plan_dataset(7, num_processes=1, verify_integrity=True, check_data=False)
    assert list((folders / "nnUNet_preprocessed").rglob("*")) == []
