"""Predictions equal nnU-Net's, appear complete, and continue after a broken case or a kill."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from killed_processes import left_draft
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tiny_models import (
    CASES,
    FACTORIZER,
    NAME,
    PLANS,
    STOCK,
    assert_equal_within_rounding,
    run_predict,
    write_cascade,
    write_image,
    write_model,
)

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.worker_pool import WorkerPool
from factorizer_nnunet.nnunet.checkpoint import read_fold
from factorizer_nnunet.prediction import outputs, pipeline


def contents(folder: Path) -> dict[str, bytes]:
    """The files of the predictions; neither records nor what was set aside."""
    kinds = (".gz", ".npz", ".pkl")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in kinds}


def labels(folder: Path, case: str) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / f"{case}.nii.gz")))


@pytest.mark.parametrize(
    ("trainer", "configuration", "folds"),
    [(FACTORIZER, "3d_fullres", 2), (FACTORIZER, "2d", 1), (STOCK, "3d_fullres", 1), (FACTORIZER, "3d_cascade", 1)],
)
def test_predictions_equal_nnunets(root: Path, trainer: str, configuration: str, folds: int) -> None:
    options: dict = {"save_probabilities": True, "use_mirroring": folds > 1}
    stock: dict = {"save_probabilities": True}
    if configuration == "3d_cascade":
        lowres = write_model(root, trainer, "3d_lowres")
        assert run_predict(root, lowres, out=root / "lowres", use_mirroring=False).failed == {}
        options["previous_stages"] = [root / "lowres"]
        stock["folder_with_segs_from_prev_stage"] = str(root / "lowres")
    cascade = configuration == "3d_cascade"
    model = write_cascade(root, trainer) if cascade else write_model(root, trainer, configuration, folds)
    outcome = run_predict(root, model, folds=tuple(str(fold) for fold in range(folds)), **options)
    assert (outcome.predicted, outcome.skipped, outcome.failed) == (list(CASES), [], {})

    predictor = nnUNetPredictor(use_mirroring=options["use_mirroring"], device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), tuple(range(folds)))
    (root / "stock").mkdir()
    predictor.predict_from_files_sequential(str(root / "images"), str(root / "stock"), **stock)
    for case in CASES:
        assert len(np.unique(labels(root / "out", case))) > 1
        ours, theirs = (np.load(root / out / f"{case}.npz")["probabilities"] for out in ("out", "stock"))
        if folds == 1:
            assert_equal_within_rounding(ours, theirs)
            assert (labels(root / "out", case) == labels(root / "stock", case)).mean() >= 0.999
        else:  # nnU-Net rounds each fold to half precision, which is coarse in corners, of which this image has many
            assert (np.abs(ours - theirs) > 1e-3).mean() < 0.05
            assert (labels(root / "out", case) == labels(root / "stock", case)).mean() >= 0.98
        assert (root / "out" / f"{case}.pkl").is_file()
    for name in ("dataset.json", "plans.json"):
        assert json.loads((root / "out" / name).read_text()) == json.loads((root / "stock" / name).read_text())


@pytest.mark.slow
def test_worker_processes_give_the_same(root: Path, model: Path) -> None:
    run_predict(root, model, out=root / "alone", use_mirroring=False)
    outcome = run_predict(root, model, use_mirroring=False, preprocessing_processes=1, export_processes=1)
    assert outcome.predicted == list(CASES)
    assert contents(root / "out") == contents(root / "alone")


def test_only_what_is_not_complete_is_predicted_again(root: Path, model: Path) -> None:
    options = {"use_mirroring": False, "save_probabilities": True}
    run_predict(root, model, **options)
    out, intact = root / "out", contents(root / "out")
    (out / "a.nii.gz").write_bytes(intact["a.nii.gz"][:-20])
    (out / "b.npz").write_bytes(intact["b.npz"][:-30])
    left_draft(out / "c")
    again = run_predict(root, model, **options)
    assert (again.predicted, again.skipped) == (["a", "b"], ["c"])
    assert contents(out) == intact
    assert (out / "a.nii.gz.incomplete-1").read_bytes() == intact["a.nii.gz"][:-20], "nothing is removed"
    assert "a.nii.gz cannot be read; kept as a.nii.gz.incomplete-1" in again.set_aside[0]
    assert run_predict(root, model, **options).skipped == list(CASES)
    (out / "c.npz").unlink()
    assert run_predict(root, model, use_mirroring=False).skipped == list(CASES), "probabilities are not asked for"


def test_a_broken_case_does_not_stop_the_others(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = root / "images" / "b_0001.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:300])
    arguments = ["predict", "-d", "509", "-c", "3d_fullres", "-tr", FACTORIZER, "-p", PLANS, "-f", "0"]
    arguments += ["-i", str(root / "images"), "-o", str(root / "out"), "-device", "cpu", "--disable_tta"]
    arguments += ["-npp", "0", "-nps", "0"]
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    assert "predicted: 2, complete before: 0, failed: 1" in out
    assert f"failed: b: {damaged} is a truncated or damaged gzip file" in err
    assert set(contents(root / "out")) == {"a.nii.gz", "c.nii.gz"}
    damaged.write_bytes(b"no image at all")
    assert cli.main(arguments) == 1
    assert "failed: b: " in capsys.readouterr().err

    write_image(damaged, 11)
    assert cli.main(arguments) == 0
    assert "predicted: 1, complete before: 2, failed: 0" in capsys.readouterr().out


def test_a_worker_that_dies_takes_no_other_case_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when memory runs out; the pool of processes is broken then, with all that was handed to it."""
    monkeypatch.setattr(pipeline, "preprocess", max)
    with WorkerPool(1) as pool:
        died, other = pool.submit(os._exit, 9), pool.submit(max, 1, 2, 3)
        assert "a worker process died" in pipeline.reason_of(died.exception())
        assert pipeline.image_of(other, 2, pool, 3, 1) == 3


def test_an_interrupted_export_leaves_nothing_half(root: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(writer: object, labels: object, file: str, properties: object) -> None:
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(SimpleITKIO, "write_seg", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_predict(root, model, use_mirroring=False)
    assert contents(root / "out") == {}


def test_a_full_disk_ends_it(root: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SimpleITKIO, "write_seg", full)
    with pytest.raises(UserError, match=r"no space left for a in .*free space, then run the same command again"):
        run_predict(root, model, use_mirroring=False)
    assert contents(root / "out") == {}
    monkeypatch.setattr(outputs, "free_space", lambda folder: 4096)
    with pytest.raises(UserError, match=r"out has 0 MB of free space, predictions of 3 cases take at least 1 MB"):
        run_predict(root, model, use_mirroring=False)


def edited(model: Path, **changes: object) -> Path:
    file = model / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file, weights_only=False), **changes}, file)
    return file


class Malicious:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_that_asks_for_code_is_refused(
    root: Path, model: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    monkeypatch.chdir(root)
    file = edited(model, extra=Malicious())
    if legacy:
        content = {**torch.load(file, weights_only=False), "extra": Malicious()}
        (root / "ran").rmdir()
        torch.save(content, file, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"checkpoint_final.pth asks for posix.mkdir, .*--trust-checkpoint"):
        run_predict(root, model)
    assert not (root / "ran").exists() and not (root / "out").exists()
    assert run_predict(root, model, use_mirroring=False, trusted=True).failed == {}
    assert (root / "ran").exists()


@pytest.mark.parametrize("module", ["numpy._core.multiarray", "numpy.core.multiarray"])
def test_checkpoints_of_either_numpy_load(root: Path, module: str) -> None:
    """numpy 2 moved the function by which its numbers are stored; nnU-Net's logs hold such numbers."""
    content = {"network_weights": {}, "trainer_name": "T", "init_args": {"configuration": "2d"}, "log": np.float32(1)}
    saved = io.BytesIO()
    torch.save(content, saved, _use_new_zipfile_serialization=False)
    here = np.float32(1).__reduce__()[0].__module__
    (root / "checkpoint.pth").write_bytes(saved.getvalue().replace(f"c{here}\n".encode(), f"c{module}\n".encode()))
    assert read_fold(root / "checkpoint.pth").configuration == "2d"


def mistakes(root: Path, model: Path) -> dict[str, dict]:
    """What the message says, and the request that it answers."""
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    (root / "file").touch()
    (root / "foreign").mkdir()
    (root / "foreign" / "holiday.jpg").touch()
    return {
        "no checkpoint_final.pth of fold 1, 2: name those with -f 0": {"folds": ("0", "1", "2")},
        "no checkpoint_best.pth of fold 0: name an existing one with -chk (checkpoint_f": {
            "checkpoint": "checkpoint_best.pth"
        },
        f"it lies in the model folder {model}: name that": {"model": model / "fold_0"},
        "there is no model in": {"model": root / "nnUNet_results" / NAME / "none"},
        "is not a folder. Name the folder of the images with -i": {"images": root / "no"},
        "has no images CASE_0000.nii.gz": {"images": elsewhere},
        "contains files that are not predictions of these cases (holiday.jpg)": {"out": root / "foreign"},
        "is a file. Name a folder with -o": {"out": root / "file"},
        "has no previous stage: leave out -prev_stage_predictions": {"previous_stages": [elsewhere]},
        "-step_size 1.5 must be above 0": {"tile_step_size": 1.5},
        "-f one: a fold is a number": {"folds": ("one",)},
        "-f 0 0: name each fold once": {"folds": ("0", "0")},
        "--memory 0 must be above 0, in GB": {"memory": 0.0},
        "-npp and -nps must be 0 or more": {"export_processes": -1},
    }


def test_mistakes_are_reported_before_anything_is_written(root: Path, model: Path) -> None:
    for message, changes in mistakes(root, model).items():
        with pytest.raises(UserError) as error:
            run_predict(root, **{"model": model, **changes})
        assert message in str(error.value)
        assert not (root / "out").exists()
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device is available"):
            run_predict(root, model, device="cuda")


def test_damaged_models_are_reported(root: Path, model: Path) -> None:
    plans_file, file = model / "plans.json", model / "fold_0" / "checkpoint_final.pth"
    intact, plans = file.read_bytes(), json.loads(plans_file.read_text())
    file.write_bytes(intact[: len(intact) // 2])
    with pytest.raises(UserError, match=r"checkpoint_final.pth cannot be read .*truncated or damaged"):
        run_predict(root, model)
    weights = next(iter(torch.load(io.BytesIO(intact), weights_only=False)["network_weights"].values()))
    place = intact.index(weights.numpy().tobytes())
    file.write_bytes(intact[: place + 2] + b"x" + intact[place + 3 :])
    with pytest.raises(UserError, match=r"cannot be read \(the checksum of .* does not fit\): truncated or damaged"):
        run_predict(root, model)
    torch.save({"state_dict": {}}, file)
    with pytest.raises(UserError, match="is not a checkpoint of an nnU-Net trainer"):
        run_predict(root, model)
    file.write_bytes(intact)
    edited(model, trainer_name="nnUNetTrainerOfOthers")
    with pytest.raises(UserError, match="nnUNetTrainerOfOthers is not known here"):
        run_predict(root, model)
    file.write_bytes(intact)
    for name, key in (("dataset.json", "file_ending"), ("plans.json", "configurations")):
        text = (model / name).read_text()
        (model / name).write_text(json.dumps({k: v for k, v in json.loads(text).items() if k != key}))
        with pytest.raises(UserError, match=f"{name} lacks {key}: restore it"):
            run_predict(root, model)
        (model / name).write_text(text)
    dataset = json.loads((model / "dataset.json").read_text())
    for key, name, value, message in (
        ("labels", "shell", 3, rf"2 input channels and 4 outputs, as {model}/dataset.json says"),
        ("channel_names", "2", "FLAIR", r"must have an entry for each channel, .*dataset.json has 3"),
    ):
        (model / "dataset.json").write_text(json.dumps({**dataset, key: {**dataset[key], name: value}}))
        with pytest.raises(UserError, match=message):
            run_predict(root, model)
    (model / "dataset.json").write_text(json.dumps(dataset))
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"][0] = 16
    plans_file.write_text(json.dumps(plans))
    with pytest.raises(UserError, match=r"does not fit the network in .*plans.json .* weights? of another shape"):
        run_predict(root, model)


def test_predictions_of_another_model_are_not_continued(root: Path, model: Path) -> None:
    run_predict(root, model, use_mirroring=False)
    before = contents(root / "out")
    for changes in ({"use_mirroring": True}, {"use_mirroring": False, "tile_step_size": 0.6}):
        with pytest.raises(UserError, match=f"other settings. Different: {list(changes)[-1]}"):
            run_predict(root, model, **changes)
    edited(model, current_epoch=7)
    with pytest.raises(UserError, match="of another model or with other settings. Different: checkpoints"):
        run_predict(root, model, use_mirroring=False)
    assert contents(root / "out") == before


def test_nnunets_own_predictions_are_continued_if_the_plans_agree(root: Path, model: Path) -> None:
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    (root / "out").mkdir()
    predictor.predict_from_files_sequential(str(root / "images"), str(root / "out"))
    (root / "out" / "b.nii.gz").unlink()
    with pytest.raises(UserError, match=r"without a record of the images .*\(a, c\).*--continue_prediction takes"):
        run_predict(root, model, use_mirroring=False)
    outcome = run_predict(root, model, use_mirroring=False, continue_prediction=True)
    assert (outcome.predicted, outcome.skipped) == (["b"], ["a", "c"])
    assert run_predict(root, model, use_mirroring=False).skipped == list(CASES), "they have a record now"


def test_the_model_is_named_in_one_way(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["predict", "-i", str(root / "images"), "-o", str(root / "out")]
    for options, message in (
        (["-m", str(model), "-d", "509"], "-m already names the model: leave out -d"),
        (["-d", "509"], "-c missing: name the model by -d and -c"),
        (["-d", "510", "-c", "3d_fullres"], "510"),
        (["-d", "509", "-c", "3d_lowres", "-device", "cpu"], f"{NAME} has {FACTORIZER}__{PLANS}__3d_fullres"),
    ):
        assert cli.main([*folders, *options]) == 2
        assert message in capsys.readouterr().err
