"""``factorizer-nnunet finetune``: what it says first, and what it refuses before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from finetuning_example import (
    FACTORIZER,
    SOURCE,
    STOCK,
    TARGET,
    snapshot,
    source_plans,
    write_source,
    write_target,
    zipped,
)

from factorizer_nnunet.cli import main
from factorizer_nnunet.finetuning.preparation import prepared
from factorizer_nnunet.finetuning.request import FinetuneRequest
from factorizer_nnunet.nnunet.environment import STEP_VARIABLE
from factorizer_nnunet.running import worker_slots

PLANS = "nnUNetFactorizerFinetunedPlans_from004"
TRAINER = f"{FACTORIZER}_20epochs_50iters"


def finetune(model: Path, *options: str) -> int:
    return main(["finetune", "--from", str(model), "-d", "5", "-device", "cpu", *options])


def test_what_comes_from_where_is_shown_first(
    folders: Path, model: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(folders)
    assert finetune(model, "--dry-run", "--map", "T1ce=T1c", "-tr", TRAINER, "--freeze", "decoder", "-f", "0", "1") == 0
    lines = [" ".join(line.replace("|", " ").split()) for line in capsys.readouterr().out.splitlines()]
    assert f"{TARGET} starts from {SOURCE}, {FACTORIZER}__nnUNetPlans__3d_fullres, fold 0" in lines
    for expected in ("FLAIR FLAIR", "T1c T1ce", "edema new, from the mean of rim, core", "core core"):
        assert expected in lines
    assert "Not used of the model: T1" in lines and "Not used of the model: rim" in lines
    assert "network Factorizer, as in the model" in lines
    trainer = f"{TRAINER}_lr1e-3_warmup100_freezedecoder"
    assert f"Trainer: {trainer}" in lines
    for fold in (0, 1):
        assert f"nnUNetv2_train 5 3d_fullres {fold} -tr {trainer} -p {PLANS} -device cpu --c" in lines
    assert snapshot(folders) == before


def test_a_zip_starts_like_its_folder(
    folders: Path, model: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(model, "--dry-run") == 0
    from_folder = capsys.readouterr().out
    assert finetune(zipped(model, folders / "model.zip"), "--dry-run") == 0
    assert capsys.readouterr().out == from_folder


def test_a_stock_model_is_trained_by_its_trainer(
    folders: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_source(folders / "elsewhere", STOCK)
    assert finetune(model, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "PlainConvUNet, as in the model" in out and f"-tr {STOCK} " in out
    assert "trains at its own learning rate" in out
    assert finetune(model, "--dry-run", "--freeze", "encoder") == 2
    assert f"--freeze cannot be given to {STOCK}" in capsys.readouterr().err
    assert finetune(model, "--dry-run", "-tr", FACTORIZER) == 2
    assert f"{FACTORIZER}_lr1e-3_warmup1000 builds another network than the model has" in capsys.readouterr().err


def test_a_model_for_missing_channels_stays_one(
    folders: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_source(folders / "elsewhere", f"{FACTORIZER}_channeldrop", channel_drop=True)
    assert finetune(model, "--dry-run") == 0
    out = capsys.readouterr().out
    assert f"Trainer: {FACTORIZER}_lr1e-3_warmup1000_channeldrop" in out and "WARNING" not in out
    assert finetune(model, "--dry-run", "-tr", TRAINER) == 0
    out = capsys.readouterr().out
    assert "WARNING: the model predicts cases without some channels, but what is trained now will refuse them" in out
    assert f"-tr {TRAINER}_lr1e-3_warmup100_channeldrop" in out


def test_names_that_do_not_fit_are_pointed_out(folders: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_target(folders / "nnUNet_raw", ("x", "y"))
    assert finetune(model, "--dry-run", "--freeze", "encoder") == 0
    out = capsys.readouterr().out
    assert "WARNING: none of the channels of Dataset005_Target has a name of the model" in out and "--map T1=x" in out
    assert "WARNING: the first convolution is frozen (encoder)" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--map", "T2=T1c"], "--map T2=T1c does not name a channel or class of the model"),
        (["--map", "T1=T1c", "--map", "T1ce=T1c"], "--map gives T1 and T1ce of the model to T1c"),
        (["-c", "2d"], "was trained as 3d_fullres, so its network cannot be fine-tuned as 2d"),
        (["--from-fold", "3"], "has no checkpoint_final.pth of fold 3"),
        (["-f", "first"], "invalid fold 'first'"),
        (["--freeze", "head"], "unknown part 'head' of --freeze: choose from stem, encoder, decoder"),
        (["--learning-rate", "0"], "invalid --learning-rate 0.0: give a number above 0"),
        (["-tr", f"{FACTORIZER}_lr1e-4", "--learning-rate", "1e-3"], "its name says 0.0001, --learning-rate says"),
        (["-tr", f"{FACTORIZER}_20epo"], "invalid trainer suffix '_20epo'"),
        (["-tr", "nnUNetTrainerUnknown"], "the trainer nnUNetTrainerUnknown is not known here"),
        (["-p", "my__plans"], "'my__plans' cannot name the plans of a model"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(
    folders: Path, model: Path, target: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    before = snapshot(folders)
    assert finetune(model, *options) == 2
    assert message in capsys.readouterr().err
    assert snapshot(folders) == before


def test_a_data_set_without_dataset_json_is_refused(
    folders: Path, model: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (target / "dataset.json").unlink()
    assert finetune(model) == 2
    assert f"{target} has no dataset.json" in capsys.readouterr().err


def test_data_are_checked_before_anything_is_written(
    folders: Path, model: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (target / "labelsTr" / "case_3.nii.gz").write_bytes(b"damaged")
    assert finetune(model, "-np", "1") == 2
    assert "case_3" in capsys.readouterr().err
    assert not list((folders / "nnUNet_results").iterdir())
    assert not list((folders / "nnUNet_preprocessed").rglob("*Plans*"))


def test_a_model_of_another_dimension_is_refused(
    folders: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_source(folders / "elsewhere", plans=source_plans(2))
    assert finetune(model, "-c", "3d_fullres", "--dry-run") == 2
    assert "was trained as 2d, so its network cannot be fine-tuned as 3d_fullres" in capsys.readouterr().err


def test_a_3d_model_is_refused_for_2d_images(
    folders: Path, model: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fingerprint = folders / "nnUNet_preprocessed" / TARGET / "dataset_fingerprint.json"
    fingerprint.parent.mkdir()
    fingerprint.write_text(json.dumps({"spacings": [[999.0, 1.0, 1.0]], "shapes_after_crop": [[1, 30, 40]]}))
    assert finetune(model, "--dry-run") == 2
    assert f"segments 3D images, those of {TARGET} are 2D. Start from a model of 2d" in capsys.readouterr().err


def test_too_few_cases_for_folds_are_reported(
    folders: Path, model: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in ("case_0", "case_1"):
        for file in target.glob(f"*Tr/{case}*"):
            file.unlink()
    description = json.loads((target / "dataset.json").read_text())
    (target / "dataset.json").write_text(json.dumps({**description, "numTraining": 4}))
    assert finetune(model, "--dry-run") == 2
    assert "4 training cases are too few for 5 folds" in capsys.readouterr().err
    assert finetune(model, "--dry-run", "-f", "all") == 0


def test_a_cascade_is_refused(folders: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_source(folders / "elsewhere", plans=source_plans(previous_stage="3d_lowres"))
    assert finetune(model, "--dry-run") == 2
    assert "is the second stage of a cascade" in capsys.readouterr().err


def test_code_in_a_checkpoint_is_not_executed(
    folders: Path, model: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    torch.save({**content, "callback": Path("anything")}, file)
    assert finetune(zipped(model, folders / "model.zip")) == 2
    assert "execute code from the file" in capsys.readouterr().err


def test_plans_and_results_of_others_are_not_overwritten(
    folders: Path, model: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = folders / "nnUNet_results" / TARGET / f"{FACTORIZER}_lr1e-3_warmup1000__{PLANS}__3d_fullres"
    results.mkdir(parents=True)
    assert finetune(model) == 2
    assert f"{results} exists, but not its plans" in capsys.readouterr().err
    plans = folders / "nnUNet_preprocessed" / TARGET / f"{PLANS}.json"
    plans.parent.mkdir(parents=True)
    plans.write_text(json.dumps({"plans_name": PLANS}))
    before = snapshot(folders)
    assert finetune(model) == 2
    assert f"{plans} exists and is not of this model" in capsys.readouterr().err
    assert finetune(model, "-p", "Other_plans", "--dry-run") == 0
    assert snapshot(folders) == before


def test_plans_of_the_same_weights_are_kept(
    folders: Path, model: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with prepared(FinetuneRequest(source=model, dataset=5)) as preparation:
        plans, origin = preparation.plans_file, dict(preparation.origin)
    plans.parent.mkdir(parents=True)
    plans.write_text(json.dumps({"finetuned_from": {**origin, "model": "as it was named before"}}))
    assert finetune(model, "--dry-run") == 0
    out = capsys.readouterr().out
    assert f"The plans exist and are kept as they are: {plans}" in out and "spacing" not in out
    for changed in ({**origin, "sha256": "0" * 64}, {**origin, "channels": {}}, "other plans"):
        plans.write_text(json.dumps({"finetuned_from": changed}))
        assert finetune(model, "--dry-run") == 2
        assert f"{plans} exists and is not of this model" in capsys.readouterr().err


def test_a_missing_device_is_reported_before_anything_is_written(
    folders: Path, model: Path, target: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_slots, "visible_gpus", list)
    before = snapshot(folders)
    assert finetune(model, "-device", "cuda") == 2
    assert "no GPU found" in capsys.readouterr().err
    assert snapshot(folders) == before
    assert finetune(model, "-device", "cuda", "--dry-run") == 0


def test_a_wrong_variable_is_reported_before_anything_is_written(
    folders: Path, model: Path, target: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STEP_VARIABLE, "graph")
    before = snapshot(folders)
    assert finetune(model, "-device", "cpu") == 2
    assert f"{STEP_VARIABLE} is 'graph'; set it to one of" in capsys.readouterr().err
    assert snapshot(folders) == before


def test_folds_next_to_the_raw_data_are_those_that_will_be_used(
    folders: Path, model: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``plan`` copies them: data sets of few patients have no other folds."""
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (target / "labelsTr").iterdir())
    splits = target / "splits_final.json"
    splits.write_text(json.dumps([{"train": cases[1:], "val": cases[:1]}]))
    assert finetune(model, "--dry-run", "-f", "0") == 0
    splits.write_text("[")
    capsys.readouterr()
    assert finetune(model, "--dry-run", "-f", "0") == 2
    assert str(splits) in capsys.readouterr().err
