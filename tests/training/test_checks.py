"""What does not fit together is reported before a training writes anything."""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from plans_example import NAME, MakeTrainer, dataset_json, example_plans
from stock_plans import configuration, stock_kwargs

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.environment import ext_trainer_folder
from factorizer_nnunet.planning.architecture import factorizer_architecture
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

Change = Callable[[dict[str, Any]], None]


def fullres(**values: object) -> Change:
    return lambda plans: plans["configurations"]["3d_fullres"].update(values)


def architecture(**values: object) -> Change:
    return lambda plans: plans["configurations"]["3d_fullres"]["architecture"].update(values)


def arch_kwargs(**values: object) -> Change:
    return lambda plans: plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(values)


def own_architecture(**values: object) -> Change:
    ours = factorizer_architecture(stock_kwargs(), (1.0, 1.0, 1.0))
    return architecture(**{**ours, "arch_kwargs": {**ours["arch_kwargs"], **values}})


def without_strides(plans: dict[str, Any]) -> None:
    del plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["strides"]


BAD_PLANS: dict[str, tuple[Change, str]] = {
    "no such configuration": (
        lambda plans: plans["configurations"].pop("3d_fullres"),
        r"nnUNetPlans\.json has no configuration '3d_fullres'; it has \['2d'\]",
    ),
    "another data set": (
        lambda plans: plans.update(dataset_name="Dataset999_Other"),
        r"made for Dataset999_Other, but there is no .*nnUNetv2_move_plans_between_datasets",
    ),
    "another number of channels": (
        fullres(normalization_schemes=["ZScoreNormalization"]),
        r"normalization_schemes has 1 entries, .*dataset\.json 2 channels; plan the data set again",
    ),
    "no name": (lambda plans: plans.update(plans_name=None), "plans_name None must be text; correct it or plan"),
    "a list of data sets": (
        lambda plans: plans.update(dataset_name=[NAME]),
        "dataset_name .* must be text; correct it",
    ),
    "a path for a name": (
        lambda plans: plans.update(plans_name="../x"),
        r"plans_name in .*: '\.\./x' contains a separator",
    ),
    "axes as text": (lambda plans: plans.update(transpose_forward="zyx"), "transpose_forward 'zyx' must be a list"),
    "not preprocessed": (
        fullres(data_identifier="nnUNetPlans_3d_other"),
        rf"no preprocessed data in .*{NAME}/nnUNetPlans_3d_other; run: nnUNetv2_preprocess -d {int(NAME[7:10])} "
        r"-plans_name nnUNetPlans -c 3d_fullres",
    ),
    "no such network": (
        architecture(network_class_name="some.package.Net"),
        r"'some\.package\.Net'; expected a class of factorizer_nnunet\.network or dynamic_network_architectures",
    ),
    "a network of somebody else": (
        architecture(network_class_name="torch.nn.Linear"),
        r"'torch\.nn\.Linear'; expected a class of factorizer_nnunet\.network or",
    ),
    "a module in place of a network": (
        architecture(network_class_name="factorizer_nnunet.network"),
        "network_class_name is factorizer_nnunet.network; expected a class",
    ),
    "no class name": (architecture(network_class_name=None), "architecture.network_class_name None must be text"),
    "a patch of one number": (fullres(patch_size=40), "3d_fullres: patch_size 40 must be a list; correct it"),
    "a spacing of words": (fullres(spacing=["a", 1, 1]), r"spacing \['a', 1, 1\] must be voxel sizes in mm above 0"),
    "a flag of words": (fullres(batch_dice="x"), "batch_dice 'x' must be true or false"),
    "data elsewhere": (
        fullres(data_identifier="../../raw/Dataset001_X"),
        r"data_identifier in .*, configuration 3d_fullres: .* contains a separator of folders",
    ),
    "data of no name": (fullres(data_identifier=None), "data_identifier None must be text"),
    "an architecture of words": (fullres(architecture="Factorizer"), "architecture 'Factorizer' must be an object"),
    "arguments as a list": (architecture(arch_kwargs=[1]), r"architecture\.arch_kwargs \[1\] must be an object"),
    "no arguments": (
        lambda plans: plans["configurations"]["3d_fullres"]["architecture"].pop("arch_kwargs"),
        r"3d_fullres has no architecture\.arch_kwargs; add it",
    ),
    "no architecture": (
        lambda plans: plans["configurations"]["3d_fullres"].pop("architecture"),
        "3d_fullres has no 'architecture'; add it",
    ),
    "a configuration of words": (
        lambda plans: plans["configurations"].update({"3d_fullres": "x"}),
        "configuration 3d_fullres: must be an object",
    ),
    "configurations as a list": (lambda plans: plans.update(configurations=[]), "configurations must be an object"),
    "heir of nothing": (fullres(inherits_from="nothere"), "inherits_from 'nothere' is not another configuration"),
    "no plans name": (
        lambda plans: plans.pop("plans_name"),
        "the plans file.json has no 'plans_name'; add it, or plan",
    ),
    "no spacing": (
        lambda plans: plans["configurations"]["3d_fullres"].pop("spacing"),
        r"3d_fullres has no 'spacing'; add it, or plan the data set again",
    ),
    "a patch of fractions": (
        fullres(patch_size=[16.0, 16, 16]),
        r"patch_size \[16\.0, 16, 16\] must be 3 integers",
    ),
    "a patch of two axes": (fullres(patch_size=[16, 16]), r"patch_size \[16, 16\] must be 3 integers"),
    "a batch of words": (fullres(batch_size="two"), "batch_size 'two' must be an integer of at least 1"),
    "a network for another patch": (
        own_architecture(patch_size=[32, 16, 16]),
        r"arch_kwargs\.patch_size \[32, 16, 16\] is not the configuration's patch_size \[16, 16, 16\]; make them equal",
    ),
    "a network of another kind": (without_strides, r"builds no network: .*no 'strides'; it is not the plan of a U-Net"),
    "an impossible setting": (
        own_architecture(head_dim=7),
        r"3d_fullres: architecture\.arch_kwargs builds no network: invalid head_dim=7: it does not divide the 32",
    ),
    "a misspelled setting": (own_architecture(num_iter=3), r"builds no network: .*'num_iter'"),
    "an indivisible patch": (
        fullres(patch_size=[16, 18, 16]),
        r"patch_size \[16, 18, 16\] is not divisible by the strides' product 4 on axis 1; change patch_size or",
    ),
    "strides of two axes": (
        own_architecture(strides=[[1, 1], [2, 2], [2, 2]], kernel_sizes=[[3, 3]] * 3, window_sizes=[[4, 4]] * 3),
        r"arch_kwargs\.strides have 2 axes, patch_size 3; make them equal",
    ),
    "a cascade without its first stage": (
        fullres(previous_stage="3d_lowres"),
        rf"__3d_lowres/predicted_next_stage/3d_fullres lacks 2 .*case_0.*: nnUNetv2_train {NAME} 3d_lowres FOLD",
    ),
}


@pytest.mark.parametrize("name", BAD_PLANS)
def test_bad_plans_are_reported_and_nothing_is_written(make_trainer: MakeTrainer, tmp_path: Path, name: str) -> None:
    change, message = BAD_PLANS[name]
    make_trainer(configuration="2d")  # writes the folders of good plans
    results = tmp_path / "nnUNet_results"
    before = sorted(results.rglob("*"))
    plans = example_plans()
    change(plans)
    with pytest.raises(UserError, match=message):
        make_trainer(plans=plans)
    assert sorted(results.rglob("*")) == before


def test_the_same_plans_unchanged_pass(make_trainer: MakeTrainer) -> None:
    make_trainer(configuration="2d")
    assert make_trainer().configuration_name == "3d_fullres"


def test_another_configuration_may_be_damaged(make_trainer: MakeTrainer) -> None:
    make_trainer()
    plans = example_plans()
    plans["configurations"]["2d"] = 3
    make_trainer(plans=plans)


def test_our_own_plans_pass(make_trainer: MakeTrainer) -> None:
    plans = example_plans()
    own_architecture()(plans)
    make_trainer(plans=plans)


def test_a_cascade_passes_once_its_first_stage_has_predicted(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(configuration="2d")
    previous = tmp_path / "nnUNet_results" / NAME / "nnUNetTrainerFactorizer__nnUNetPlans__3d_lowres"
    predictions = previous / "predicted_next_stage" / "3d_fullres"
    predictions.mkdir(parents=True)
    plans = example_plans()
    fullres(previous_stage="3d_lowres")(plans)
    segmentation = np.ones((1, 9, 9, 9), np.uint8)
    nnUNetDatasetBlosc2.save_seg(segmentation, str(predictions / "case_0"))
    with pytest.raises(UserError, match=r"of all 2 cases, but .* lacks 1 of them \(case_1\)"):
        make_trainer(plans=copy.deepcopy(plans))
    nnUNetDatasetBlosc2.save_seg(segmentation, str(predictions / "case_1"))
    assert make_trainer(plans=copy.deepcopy(plans)).is_cascaded
    (predictions / "case_1.b2nd").write_bytes((predictions / "case_1.b2nd").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"1 file cut off \(case_1.b2nd\). Remove them and validate their folds again"):
        make_trainer(plans=plans)


def test_a_module_that_plans_name_is_not_executed(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "foreign_network.py").write_text("from pathlib import Path\nPath(__file__ + '.ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    plans = example_plans()
    architecture(network_class_name="foreign_network.Net")(plans)
    with pytest.raises(UserError, match=r"'foreign_network\.Net'; expected a class of .*could execute code"):
        make_trainer(plans=plans)
    assert not (tmp_path / "foreign_network.py.ran").exists()


@pytest.mark.parametrize("variable", ["nnUNet_preprocessed", "nnUNet_results"])
@pytest.mark.parametrize("value", [None, "/no/such/folder"])
def test_unset_and_missing_folders_are_reported(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None
) -> None:
    make_trainer(configuration="2d")
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=rf"^{variable} is not set\." if value is None else rf"{variable}.*{value}"):
        nnUNetTrainerFactorizer(example_plans(), "3d_fullres", 0, dataset_json(), torch.device("cpu"))


def test_a_changed_dataset_json_is_reported(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(configuration="2d")
    described = tmp_path / "nnUNet_preprocessed" / NAME / "dataset.json"
    described.write_text(json.dumps({**dataset_json(), "labels": {"background": 0, "all": 1}}))
    with pytest.raises(UserError, match=f"made for {NAME}, not for the data set it is used with"):
        make_trainer()


DAMAGED_FILES = {
    "folds cut off": ("splits_final.json", '[{"train": ["case_0"', r"not valid JSON: .*Correct the file, or move it"),
    "folds of other cases": (
        "splits_final.json",
        '[{"train": ["case_0"], "val": ["case_7"]}]',
        r"fold 0 names cases that the dataset does not have: case_7\. Correct the file, or move it away",
    ),
    "no folds": ("splits_final.json", None, r"2 training cases are too few for 5 folds.* nnUNetv2_train … all"),
    "empty fingerprint": ("dataset_fingerprint.json", "", r"is not valid JSON: .*nnUNetv2_extract_fingerprint -d 511"),
    "fingerprint of a list": ("dataset_fingerprint.json", "[1]", r"contains a list instead of an object\. Restore it"),
    "no fingerprint": ("dataset_fingerprint.json", None, r"cannot read .*Restore it, or compute it again: nnUNetv2"),
}


@pytest.mark.parametrize("name", DAMAGED_FILES)
def test_a_damaged_file_is_refused_before_the_fold_has_a_folder(
    make_trainer: MakeTrainer, tmp_path: Path, name: str
) -> None:
    make_trainer(configuration="2d")
    file, content, message = DAMAGED_FILES[name]
    damaged = tmp_path / "nnUNet_preprocessed" / NAME / file
    damaged.unlink() if content is None else damaged.write_text(content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message) as caught:
        make_trainer()
    assert sorted(tmp_path.rglob("*")) == before
    assert file in str(caught.value) or name == "no folds"


def test_messages_about_plans_give_their_path(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(configuration="2d")
    file = tmp_path / "nnUNet_preprocessed" / NAME / "nnUNetPlans.json"
    file.write_text("{}")
    plans = example_plans()
    fullres(batch_size=0)(plans)
    with pytest.raises(UserError, match=rf"^{file}, configuration 3d_fullres: batch_size 0 must be an integer"):
        make_trainer(plans=plans)


OTHER_PLANS: dict[str, tuple[Change, str]] = {
    "patch": (fullres(patch_size=[16, 16, 32]), r"patch_size was \[16, 16, 32\], now it is \[16, 16, 16\]"),
    "spacing": (fullres(spacing=[2.0, 1.0, 1.0]), r"spacing was \[2\.0, 1\.0, 1\.0\], now it is \[1\.0, 1\.0, 1\.0\]"),
    "normalization": (fullres(normalization_schemes=["NoNormalization"] * 2), "normalization_schemes was"),
    "architecture": (
        arch_kwargs(features_per_stage=[8, 16, 16]),
        r"architecture\.arch_kwargs\.features_per_stage was \[8, 16, 16\], now it is",
    ),
    "data set": (lambda plans: plans.update(dataset_name="Dataset999_Other"), "dataset_name was Dataset999_Other"),
}


@pytest.mark.parametrize("name", OTHER_PLANS)
def test_a_checkpoint_of_other_plans_is_reported(make_trainer: MakeTrainer, tmp_path: Path, name: str) -> None:
    change, message = OTHER_PLANS[name]
    file = tmp_path / "checkpoint_latest.pth"
    trainer = make_trainer()
    trainer.initialize()
    other = copy.deepcopy(trainer.my_init_kwargs)
    change(other["plans"])
    trainer.my_init_kwargs = other
    trainer.save_checkpoint(str(file))
    with pytest.raises(UserError, match=rf"{file} was trained with other plans: {message}.*start a new training"):
        make_trainer().load_checkpoint(str(file))


def test_a_checkpoint_of_another_configuration_is_reported(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    file = str(tmp_path / "checkpoint_latest.pth")
    trainer = make_trainer(configuration="2d")
    trainer.initialize()
    trainer.save_checkpoint(file)
    refused = make_trainer()
    assert Path(refused.log_file).is_file()
    with pytest.raises(UserError, match="configuration was 2d, now it is 3d_fullres"):
        refused.load_checkpoint(file)
    assert not Path(refused.output_folder).exists(), "nothing is left of a training that never began"


def test_a_refused_training_leaves_what_a_fold_had(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    before = make_trainer()
    Path(before.log_file).rename(Path(before.output_folder) / "training_log_2020_1_1_00_00_00.txt")
    (Path(before.output_folder) / "notes.txt").write_text("mine")
    refused = make_trainer()
    with pytest.raises(UserError, match="nowhere.pth"):
        refused.load_checkpoint(str(tmp_path / "nowhere.pth"))
    left = {path.name for path in Path(refused.output_folder).iterdir()}
    assert left == {"training_log_2020_1_1_00_00_00.txt", "notes.txt"}


def test_batch_size_may_change_between_sessions(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    file = str(tmp_path / "checkpoint_latest.pth")
    trainer = make_trainer()
    trainer.initialize()
    trainer.save_checkpoint(file)
    plans = example_plans()
    fullres(batch_size=4)(plans)
    make_trainer(plans=plans).load_checkpoint(file)


def test_a_file_that_is_not_a_checkpoint_is_reported(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    file = str(tmp_path / "weights.pth")
    torch.save({"weights": torch.zeros(1)}, file)
    with pytest.raises(UserError, match=r"weights\.pth is not a checkpoint of an nnU-Net trainer"):
        make_trainer().load_checkpoint(file)


def test_a_truncated_checkpoint_is_reported(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint_latest.pth"
    trainer = make_trainer()
    trainer.initialize()
    trainer.save_checkpoint(str(file))
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(UserError, match=rf"{file} cannot be read .*: truncated or damaged\. Move it away"):
        make_trainer().load_checkpoint(str(file))


def test_a_checkpoint_with_a_changed_weight_is_reported(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """torch itself reads it without comparing checksums."""
    file = tmp_path / "checkpoint_latest.pth"
    trainer = make_trainer()
    trainer.initialize()
    trainer.save_checkpoint(str(file))
    content = file.read_bytes()
    weight = next(p for p in trainer.network.parameters() if p.numel() > 100).detach().numpy().tobytes()
    place = content.index(weight)
    file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(UserError, match="cannot be read .*damaged"):
        make_trainer().load_checkpoint(str(file))


def test_the_same_class_by_its_other_name_keeps_its_settings(make_trainer: MakeTrainer) -> None:
    plans = example_plans()
    own_architecture(num_iters=7)(plans)
    architecture(network_class_name="factorizer_nnunet.network.factorizer.Factorizer")(plans)
    trainer = make_trainer(plans=plans)
    trainer.initialize()
    assert trainer.network.config.num_iters == 7


def test_checks_leave_the_plans_as_they_came(make_trainer: MakeTrainer) -> None:
    """A checkpoint carries them, with the network that is trained; nnU-Net itself only takes an entry out."""
    plans = example_plans(**{"3d_fullres": configuration(), "2d": configuration(2)})
    trainer = make_trainer(plans=plans)
    expected = example_plans()
    assert plans == expected
    del expected["continue_training"]
    settings = trainer.plans_manager.plans["configurations"]["3d_fullres"]
    expected["configurations"]["3d_fullres"]["architecture"] = settings["architecture"]
    assert trainer.plans_manager.plans == expected
    assert settings["architecture"] == factorizer_architecture(stock_kwargs(), settings["spacing"])


class Foreign:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("option", [["-pretrained_weights", "w.pth"], ["-pretrained_weights=w.pth"]])
def test_pretrained_weights_that_ask_for_code_are_refused(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: list[str]
) -> None:
    """Given to nnU-Net's own command, which unpickles them."""
    from nnunetv2.run.run_training import run_training_entry

    make_trainer()  # writes the folders
    preprocessed = tmp_path / "nnUNet_preprocessed" / NAME
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(example_plans()))
    monkeypatch.chdir(tmp_path)
    torch.save({"network_weights": {}, "extra": Foreign()}, "w.pth")
    trainer = ["-tr", "nnUNetTrainerFactorizer", "-p", "nnUNetPlans", "-device", "cpu"]
    monkeypatch.setenv("nnUNet_extTrainer", str(ext_trainer_folder()))
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", NAME, "3d_fullres", "0", *trainer, *option])
    with pytest.raises(UserError, match=r"w\.pth asks for posix\.mkdir, .*Use a checkpoint that nnU-Net has written"):
        run_training_entry()
    assert not Path("ran").exists()
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", NAME, "3d_fullres", "0", *trainer])
    make_trainer().initialize()
