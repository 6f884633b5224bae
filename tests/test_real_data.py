"""``python -m benchmarks.real_data``: its pieces and their order, what it resumes, and what it refuses."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from stock_plans import configuration
from study_example import ACDC, BRATS, COST, SETUP, brats, made_up

from benchmarks.corruptions import corrupt
from benchmarks.ext_trainer import benchmark_trainers
from benchmarks.nnunet_commands import CommandError
from benchmarks.output_paths import json_output
from benchmarks.real_data import __main__ as command
from benchmarks.real_data import page as real_data_page
from benchmarks.real_data import running
from benchmarks.real_data import study as real_data_study
from benchmarks.real_data.arms import ARMS
from benchmarks.real_data.data import DATA_SETS, data_set, digest
from benchmarks.real_data.pieces import SHORT, TIME, Piece, length, pieces, seconds, trainer_name
from benchmarks.real_data.results import Results
from benchmarks.real_data.workspace import Workspace, plans_of
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.network.config import FactorizerConfig
from factorizer_nnunet.nnunet.model_name import ModelName

ROOT = Path(__file__).resolve().parents[1]


# Pieces


def test_fold_0_of_all_arms_comes_before_other_folds_and_brats_before_the_hippocampus() -> None:
    planned = pieces([BRATS, DATA_SETS["hippocampus"]], list(ARMS), {"brats_2mm/3d_fullres": COST})
    first = [piece for piece in planned if (piece.budget, piece.fold, piece.seed) == (SHORT, 0, 0)]
    assert [piece.arm for piece in first[:5]] == ["default", "unet", "default", "unet_ours", "everywhere"]
    place = {piece.key: number for number, piece in enumerate(planned)}
    assert len(place) == len(planned)
    for piece in planned:
        if piece.fold or piece.seed or piece.corrupted:
            assert all(place[brats(arm).key] < place[piece.key] for arm in ARMS)
        assert place[piece.training.key] <= place[piece.key]
    assert {piece.setup for piece in pieces([ACDC], ["unet"], {})} == {"acdc/2d", "acdc/3d_fullres"}


def test_equal_time_is_as_many_iterations_as_the_measured_costs_say() -> None:
    assert length(brats("default"), BRATS, COST) == length(brats("unet"), BRATS, COST) == 150
    assert length(brats("default", TIME), BRATS, COST) == 450
    assert length(brats("swin", TIME), BRATS, COST) == 220  # 225, in complete epochs
    assert length(brats("default", TIME, budget="long"), BRATS, COST) == 4500
    planned = {piece.key for piece in pieces([BRATS], list(ARMS), {"brats_2mm/3d_fullres": COST})}
    assert brats("resenc", TIME).key in planned
    for arm in ("unet", "unet_ours"):  # 2 % cheaper is the same training
        assert brats(arm).key in planned and brats(arm, TIME).key not in planned


def test_estimates_follow_what_was_measured() -> None:
    content: dict[str, Any] = {"setups": {}, "pieces": {}}
    guessed = seconds(brats("unet"), BRATS, content)
    assert guessed == pytest.approx(150 * 4.5 + 60)
    content["setups"]["brats_2mm/3d_fullres"] = {**SETUP, "seconds": {**COST, "unet": 2.0}}
    content["pieces"][brats("unet").key] = {"seconds": 330.0, "command_seconds": 360.0, "iterations": 150}
    assert seconds(brats("unet", fold=1), BRATS, content) == pytest.approx(150 * 2.2 + 30)
    assert seconds(brats("swin"), BRATS, content) == pytest.approx(150 * 3.3 + 60)


def test_the_name_of_a_trainer_says_recipe_length_and_seed() -> None:
    name = trainer_name(brats("default", TIME, seed=2), BRATS, COST)
    trainer = getattr(benchmark_trainers, name)
    assert issubclass(trainer, benchmark_trainers.nnUNetTrainerBenchmarkRecipe)
    assert (trainer.budget.epochs, trainer.budget.iterations_per_epoch, trainer.seed) == (45, 10, 2)
    stock = getattr(benchmark_trainers, trainer_name(brats("unet"), BRATS, COST))
    assert stock.__name__ == "nnUNetTrainerBenchmarkStock_15epochs_10iters_seed0"
    with pytest.raises(ValueError, match="invalid trainer suffix"):
        _ = benchmark_trainers.nnUNetTrainerBenchmarkStock_15epochs_seedy


def test_folds_never_split_a_patient() -> None:
    cases = [f"patient{number:03d}_frame{frame:02d}" for number in range(1, 41) for frame in (1, 12)]
    folds = ACDC.folds(cases)
    assert sorted(case for fold in folds for case in fold["val"]) == cases
    for fold in folds:
        patients = [{case.split("_")[0] for case in fold[part]} for part in ("train", "val")]
        assert len(fold["val"]) == 16 and not patients[0] & patients[1]
    with pytest.raises(UserError, match="x does not begin with a patient"):
        ACDC.folds(["x"])


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_plans_of_the_arms_differ_in_the_network_alone(ndim: int) -> None:
    plans = {"plans_name": "nnUNetPlans", "configurations": {"c": configuration(ndim, num_stages=4), "other": {}}}
    plans["configurations"]["c"]["patch_size"] = [32] * ndim
    stages, outputs = {}, {}
    for name, arm in ARMS.items():
        changed = plans_of(arm, plans, ["c"])
        own = changed["configurations"]["c"]
        assert changed["plans_name"] == arm.plans
        assert {**own, "architecture": None} == {**plans["configurations"]["c"], "architecture": None}
        entry = json.loads(json.dumps(own["architecture"]))  # as it is read from a file
        if entry["network_class_name"].startswith("factorizer_nnunet"):
            config = FactorizerConfig.from_settings(entry["arch_kwargs"])
            stages[name] = [config.has_nmf(stage) for stage in range(4)]
            outputs[name] = config.nmf_output
    assert stages == {
        "default": [False, False, True, True],
        "everywhere": [True] * 4,
        "no_nmf": [False] * 4,
        "swin": [True] * 4,
        "plain": [False, False, True, True],
        "plain_everywhere": [True] * 4,
        "plain_no_nmf": [False] * 4,
    }
    assert {name for name, output in outputs.items() if output == "gate"} == {"default", "everywhere", "no_nmf"}
    resenc = ARMS["resenc"].architecture(plans["configurations"]["c"])["arch_kwargs"]
    assert resenc["n_blocks_per_stage"] == (1, 3, 4, 6) and "n_conv_per_stage" not in resenc


def test_a_wrong_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"brats_2mm has no dataset.json: expected one of brats_2mm, hippocampus"):
        data_set("brats_2mm", tmp_path)
    write_raw(tmp_path / "Own")
    with pytest.raises(UserError, match="is not named as nnU-Net names data sets"):
        data_set(str(tmp_path / "Own"), tmp_path)
    for name, number in (("Dataset1234_My-Data 2", 1234), ("Dataset007_Own", 7)):
        own = next(tmp_path.iterdir()).rename(tmp_path / name)
        found, _ = data_set(str(own), tmp_path)
        assert (found.folder, found.number) == (name, number)
    (own / "labelsTr" / "case_0.nii.gz").unlink()
    with pytest.raises(UserError, match=r"labelsTr has 4 labels \.nii\.gz: five folds need 5 cases"):
        data_set(str(own), tmp_path)
    for content, message in (("{", "is not valid JSON"), ("[]", "instead of an object"), ("{}", "has no file_ending")):
        (own / "dataset.json").write_text(content)
        with pytest.raises(UserError, match=message):
            data_set(str(own), tmp_path)


def write_raw(folder: Path) -> None:
    """A raw data set as far as the study reads it before nnU-Net does."""
    (folder / "labelsTr").mkdir(parents=True)
    (folder / "dataset.json").write_text('{"file_ending": ".nii.gz"}')
    for number in range(5):
        (folder / "labelsTr" / f"case_{number}.nii.gz").touch()


# Resuming


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Runs the command with made-up pieces; returns the keys of those that were run."""
    write_raw(tmp_path / "brats_2mm")
    results = Results(tmp_path / "r.json")
    monkeypatch.setattr(real_data_study, "set_up", lambda *_: results.add("setups", "brats_2mm/3d_fullres", SETUP))
    monkeypatch.setattr(real_data_page, "draw", lambda _, file: file.touch())

    def run(*options: str, failing: str = "-", killed: str = "-") -> list[str]:
        ran = []

        def run_piece(_: object, piece: Piece, __: object, results: Results) -> None:
            ran.append(piece.key)
            if failing in piece.key:
                raise CommandError("nnUNetv2_train ended with status 1")
            if killed in piece.key:
                raise KeyboardInterrupt
            results.add("pieces", piece.key, made_up(piece))

        monkeypatch.setattr(real_data_study, "run_piece", run_piece)
        arguments = ["brats_2mm", "--data", str(tmp_path), "--root", str(tmp_path / "work")]
        try:
            command.main([*arguments, "--results", str(tmp_path / "r.json"), *options])
        except SystemExit as error:
            ran.append(str(error.code))
        return ran

    return run


def test_what_has_results_is_not_run_again(study: Callable[..., list[str]], tmp_path: Path) -> None:
    fold_0 = ("--only", "*/short/*", "--arms", "default", "unet")
    *done, stopped = study(*fold_0, killed="fold_2")
    assert stopped == "stopped; run the command again to continue"
    assert [key.split("/")[3] for key in done[:3]] == ["default", "unet", "default"]
    assert "fold_2" in done[-1] and not any("fold_2" in key for key in done[:-1])
    assert "| Factorizer, default " in (tmp_path / "r.md").read_text() and (tmp_path / "r.png").exists()
    again = study(*fold_0)
    assert again[0] == done[-1] and not set(again) & set(done[:-1])
    assert study(*fold_0) == []


def test_what_cannot_be_run_is_refused_before_anything_is_written(
    study: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study("--only", "nothing*") == ["error: no piece is named so; --list without --only shows their names"]
    assert study("--list", "--only", "nothing*") == [
        "error: no piece is named so; --list without --only shows their names"
    ]
    assert study("--iterations", "9") == ["2"] and "9 is less than 10" in capsys.readouterr().err
    assert study("--results", str(tmp_path / "r.md")) == ["2"] and "does not end with .json" in capsys.readouterr().err
    (tmp_path / "work").touch()
    assert "is not a folder: name another" in study()[0]
    (tmp_path / "work").unlink()
    for threads in ("abc", "-3", "0"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert study() == [f"error: OMP_NUM_THREADS is '{threads}', expected a positive number"]
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert not (tmp_path / "work").exists() and not (tmp_path / "r.json").exists()


@pytest.mark.parametrize("option", ["--list", "--only=*"])
def test_results_of_another_length_are_refused(study: Callable[..., list[str]], tmp_path: Path, option: str) -> None:
    Results(tmp_path / "r.json").add("setups", "brats_2mm/3d_fullres", SETUP)
    (message,) = study("--iterations", "300", option)
    assert message.startswith("error: brats_2mm/3d_fullres: iterations is 300 now, but 150 in ")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("option", ["--list", "--only=*"])
def test_results_of_data_that_have_changed_are_refused(
    study: Callable[..., list[str]], tmp_path: Path, option: str
) -> None:
    results = Results(tmp_path / "r.json")
    results.add("setups", "brats_2mm/3d_fullres", {**SETUP, "digest": digest(tmp_path / "brats_2mm")})
    assert "error" not in study("--list")
    next((tmp_path / "brats_2mm" / "labelsTr").iterdir()).write_text("corrected")
    (message,) = study(option)
    assert message.startswith(f"error: {tmp_path / 'r.json'} has results of other data named brats_2mm, or these have")
    assert not (tmp_path / "work").exists()


def test_results_of_another_study_are_refused(study: Callable[..., list[str]], tmp_path: Path) -> None:
    results = Results(tmp_path / "r.json")
    results.add("pieces", brats("default", fold=0).key, made_up(brats("default")))
    assert "is not a piece of this study; name its results" in study("--page")[0]  # its setup is unknown
    results.add("setups", "brats_2mm/3d_fullres", SETUP)
    assert study("--page") == []
    results.add("pieces", brats("default", fold=1).key, made_up(brats("default")))
    assert "fold_1/seed_0 is not a piece of this study" in study("--page")[0]


def test_a_working_folder_of_other_data_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "work")
    for name in ("one", "other"):
        write_raw(tmp_path / name)
    raw = workspace.raw(BRATS)
    raw.parent.mkdir(parents=True)
    raw.symlink_to(tmp_path / "one")
    with pytest.raises(UserError, match=r"other: use another --root"):
        workspace.prepare(BRATS, tmp_path / "other")
    raw.unlink()
    raw.symlink_to(tmp_path / "other")
    prepared = workspace.preprocessed(BRATS) / "prepared"
    prepared.parent.mkdir(parents=True)
    for before in ("", digest(tmp_path / "other")):
        prepared.write_text(before)
        workspace.prepare(BRATS, tmp_path / "other")
    prepared.write_text("5" * 12)
    with pytest.raises(UserError, match=r"other has changed since it was prepared in .*work: use another --root"):
        workspace.prepare(BRATS, tmp_path / "other")
    raw.rename(raw.with_name("Dataset501_Other"))
    with pytest.raises(UserError, match=r"has Dataset501_Other, of the same number: use another --root"):
        workspace.prepare(BRATS, tmp_path / "other")
    with pytest.raises(UserError, match=r"is in the data set .*one: use another --root"):
        Workspace(tmp_path / "one" / "work").prepare(BRATS, tmp_path / "one")


def test_what_nnunet_has_preprocessed_is_not_overwritten(tmp_path: Path) -> None:
    raw, workspace = tmp_path / "nnUNet_raw" / BRATS.folder, Workspace(tmp_path)
    write_raw(raw)
    splits = workspace.preprocessed(BRATS) / "splits_final.json"
    splits.parent.mkdir(parents=True)
    splits.write_text("[]")
    with pytest.raises(UserError, match=r"was not made by this command, which would overwrite it: use another --root"):
        workspace.prepare(BRATS, raw)
    assert splits.read_text() == "[]" and len(list(splits.parent.iterdir())) == 1


def test_problems_of_the_data_are_named_before_planning(tmp_path: Path) -> None:
    source = tmp_path / BRATS.folder
    write_raw(source)
    workspace = Workspace(tmp_path / "work")
    with pytest.raises(UserError, match=r"Dataset501_BraTS2mm"):
        workspace.prepare(BRATS, source)
    assert not workspace.preprocessed(BRATS).exists()


def test_missing_slices_are_not_scored(tmp_path: Path) -> None:
    workspace, predictions = Workspace(tmp_path), tmp_path / "predictions"
    raw = workspace.raw(BRATS)
    for folder in (raw / "labelsTr", predictions):
        folder.mkdir(parents=True)
    declared = {"labels": {"background": 0, "tumor": 1}, "channel_names": {"0": "MR"}, "numTraining": 1}
    (raw / "dataset.json").write_text(json.dumps({**declared, "file_ending": ".nii.gz"}))
    truth = np.random.default_rng(0).integers(0, 2, (9, 7, 8), np.uint8)
    save(truth, raw / "labelsTr" / "a.nii.gz")
    image = np.full(truth.shape, 2.0, np.float32)
    image[0, 0, 0] = 1
    (corrupted,) = corrupt([sitk.GetImageFromArray(image)], "missing_slices", 3, case="a")
    missing = (sitk.GetArrayFromImage(corrupted) == 1).all((1, 2))
    wrong = np.where(missing[:, None, None], 1 - truth, truth)
    assert missing.sum() == 4
    for corruption in ("missing_slices_3", "noise_3"):
        save(wrong, predictions / f"{corruption}_of_a.nii.gz")
    scores = running._scores_of_corrupted(workspace, BRATS, predictions)
    assert scores["missing_slices_3"] == {"a": {"tumor": [1.0, 1.0]}}
    assert scores["noise_3"]["a"]["tumor"][0] == pytest.approx(
        2 * (wrong & truth).sum() / (wrong.sum() + truth.sum()), abs=1e-4
    )


def save(labels: np.ndarray, file: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(file))


def test_one_failure_does_not_stop_the_others(study: Callable[..., list[str]]) -> None:
    *ran, message = study("--only", "*/short/unet/equal_iterations/fold_*", failing="fold_2/seed_0")
    assert message.startswith(
        "error: these pieces failed; correct what the logs say, then run it again:\n  brats_2mm/3d_full"
    )
    assert len(ran) == 10  # four folds, two seeds, the corrupted images of each fold
    assert study("--only", "*/short/unet/equal_iterations/fold_*") == [key for key in ran if "fold_2" in key]


def test_the_listing_says_what_is_left(study: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    study("--only", "*/short/default/equal_time/fold_0/seed_0")
    capsys.readouterr()
    study("--list", "--arms", "default", "unet")
    printed = capsys.readouterr().out
    table = [[cell.strip() for cell in line.split("|")[1:5]] for line in printed.splitlines() if "| brats" in line]
    rows = {key: others for key, *others in table}
    assert rows[brats("default", TIME).key][0] == "450" and rows[brats("default", TIME).key][2] == "yes"
    # 150 iterations of the default took 60 s instead of 225: 150 × 4.5 s × 60 / 225, and 60 s besides.
    assert rows[brats("unet").key] == ["150", "4.0", ""]
    left = sum(float(minutes) for _, minutes, done in rows.values() if not done) / 60
    assert float(printed.split()[-4]) == pytest.approx(left, abs=0.06)


def test_results_of_two_studies_are_kept(tmp_path: Path) -> None:
    first, second = (Results(tmp_path / "r.json") for _ in range(2))
    entry = {"scores": {}, "command_seconds": 1.0, "iterations": 3, "seconds": 1.0, "parameters": 4}
    first.add("pieces", "a", entry)
    second.add("pieces", "b", entry)
    first.add("setups", "s", SETUP)
    assert list(first.read()["pieces"]) == ["a", "b"] and [path.name for path in tmp_path.iterdir()] == ["r.json"]
    assert (tmp_path / "r.json").read_text().splitlines()[5] == f'"a": {json.dumps(entry)},'


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        ("{", "is not valid JSON"),
        ('{"setups": [], "pieces": 3}', "does not have the objects"),
        ('{"setups": {}, "pieces": {"a": 3}}', "a has no scores"),
        ('{"setups": {"s": {"seconds": {}}}, "pieces": {}}', "s has no patient"),
        ('{"setups": {"s": {"seconds": 4}}, "pieces": {}}', "seconds of s is 4"),
        ('{"setups": {}, "pieces": {"a/corrupted": {"scores": {}, "command_seconds": "1"}}}', 'corrupted is "1"'),
    ],
)
def test_damaged_results_are_reported_and_stay(
    study: Callable[..., list[str]], tmp_path: Path, damaged: str, message: str
) -> None:
    file = tmp_path / "r.json"
    file.write_text(damaged)
    with pytest.raises(UserError, match=message):
        Results(file).add("pieces", "c", {})
    for options in ((), ("--page",), ("--list",)):
        assert f"error: {file}" in study(*options)[0] and message in study(*options)[0]
    assert file.read_text() == damaged and not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    "scores", [{"b_1": {"c": [1, 2]}}, {"b_1": {"c": {"r": [1]}}}, {"b_1": {"c": {"r": ["1", 2]}}}]
)
def test_damaged_scores_are_reported(tmp_path: Path, scores: dict[str, Any]) -> None:
    piece = {"scores": scores, "command_seconds": 1}
    (tmp_path / "r.json").write_text(json.dumps({"setups": {}, "pieces": {"a/corrupted": piece}}))
    with pytest.raises(UserError, match=r"r.json: a/corrupted has damaged scores"):
        Results(tmp_path / "r.json").read()


@pytest.mark.parametrize("read_only", ["r.json", ""])
def test_results_that_cannot_be_written_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], read_only: str
) -> None:
    (tmp_path / "r.json").touch()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path / read_only)
    with pytest.raises(SystemExit):
        json_output_parser().parse_args(["--results", str(tmp_path / "r.json")])
    assert f"{tmp_path / read_only} is read-only: change its permissions" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["README.md", "README.png"])
def test_results_whose_page_would_replace_another_file_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).touch()
    with pytest.raises(SystemExit):
        json_output_parser().parse_args(["--results", str(tmp_path / "README.json")])
    assert f"{tmp_path / name} exists, but not {tmp_path / 'README.json'}" in capsys.readouterr().err
    (tmp_path / "README.json").touch()
    assert json_output_parser().parse_args(["--results", str(tmp_path / "README.json")])


def json_output_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=json_output)
    return parser


def test_a_model_of_another_network_is_not_taken(tmp_path: Path) -> None:
    """As in a working folder of a version whose default was another form."""
    workspace, name = Workspace(tmp_path), ModelName("Trainer", "nnUNetPlans_default", "3d_fullres")
    planned = {"plans_name": "nnUNetPlans_default", "configurations": {"3d_fullres": configuration()}}
    plans = workspace.plans(BRATS, "nnUNetPlans_default")
    plans.parent.mkdir(parents=True)
    plans.write_text(json.dumps(planned))
    folder = workspace.model(BRATS, name)
    folder.path.mkdir(parents=True)
    folder.plans_file.write_text(plans.read_text())
    assert workspace.fold(BRATS, name, 2).path == folder.path / "fold_2"
    planned["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["n_stages"] = 9
    folder.plans_file.write_text(json.dumps(planned))
    with pytest.raises(UserError, match=r"has another network than .*nnUNetPlans_default\.json\. Use another --root"):
        workspace.fold(BRATS, name, 2)


def test_without_data_there_is_a_message() -> None:
    with pytest.raises(SystemExit, match="name at least one DATA"):
        command.main([])
    assert isinstance(command.parser(), argparse.ArgumentParser)
