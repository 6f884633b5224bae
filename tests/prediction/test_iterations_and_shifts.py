"""Fewer iterations and shifts at prediction: by option, by environment under nnU-Net's predictor, never in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args
from tiny_models import CASES, FACTORIZER, NAME, PLANS, STOCK, assert_equal_within_rounding, run_predict, write_model

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.inference_settings import (
    ITERATIONS_VARIABLE,
    SHIFTS_VARIABLE,
    InferenceSettings,
    settings_from_environment,
)
from factorizer_nnunet.prediction.predict import predict

ONE = InferenceSettings(num_iters=1)


def probabilities(folder: Path) -> np.ndarray:
    return np.stack([np.load(folder / f"{case}.npz")["probabilities"] for case in CASES])


def test_nnunets_predictor_honours_the_variable_as_our_command_its_option(
    root: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"use_mirroring": False, "save_probabilities": True}
    run_predict(root, model, out=root / "as_trained", **options)
    run_predict(root, model, out=root / "by_option", inference_settings=ONE, **options)
    monkeypatch.setenv(ITERATIONS_VARIABLE, "1")
    monkeypatch.setenv(SHIFTS_VARIABLE, " ")
    run_predict(root, model, out=root / "by_variable", **options)
    capsys.readouterr()
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    assert "NMF iterations: 1, shifts: 2, as the environment asks" in capsys.readouterr().out
    assert (predictor.network.config.num_iters, predictor.network.config.num_used_shifts) == (1, 2)
    (root / "stock").mkdir()
    predictor.predict_from_files_sequential(str(root / "images"), str(root / "stock"), save_probabilities=True)
    stock = probabilities(root / "stock")
    for name in ("by_option", "by_variable"):
        assert_equal_within_rounding(probabilities(root / name), stock)
    assert np.abs(probabilities(root / "as_trained") - stock).max() > 1e-3, "nothing was changed"


def test_a_training_refuses_the_variables(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (ITERATIONS_VARIABLE, SHIFTS_VARIABLE):
        with monkeypatch.context() as set_here:
            set_here.setenv(variable, "1")
            with pytest.raises(UserError, match=f"{variable} is set to '1': it is for predictions.*unset {variable}"):
                get_trainer_from_args(NAME, "3d_fullres", 0, FACTORIZER, PLANS, device=torch.device("cpu"))
    assert list((root / "nnUNet_results").iterdir()) == []


def test_what_the_network_does_not_have_is_reported_before_anything_is_written(root: Path, model: Path) -> None:
    for inference_settings, message in (
        (
            InferenceSettings(num_iters=0),
            "invalid num_iters=0: expected an integer of at least 1. Correct --num-iters",
        ),
        (InferenceSettings(num_shifts=3), "invalid num_shifts=3: expected 1 to 2, the number of shifts"),
    ):
        with pytest.raises(UserError) as error:
            run_predict(root, model, inference_settings=inference_settings)
        assert message in str(error.value) and str(model) in str(error.value)
    assert not (root / "out").exists()


@pytest.mark.parametrize("value", ["0", "one", "1.5", "-1", "²"])
def test_a_variable_that_is_not_a_number_is_reported(value: str) -> None:
    with pytest.raises(UserError, match=f"{ITERATIONS_VARIABLE} is '{value}'; set it to a number of NMF iterations"):
        settings_from_environment({ITERATIONS_VARIABLE: value})


def test_other_networks_refuse_the_option_and_ignore_the_variable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = write_model(root, STOCK)
    with pytest.raises(UserError, match=r"is a PlainConvUNet, not a Factorizer: .* Leave out --num-iters"):
        run_predict(root, stock, inference_settings=ONE)
    monkeypatch.setenv(ITERATIONS_VARIABLE, "1")
    assert run_predict(root, stock, use_mirroring=False).predicted == list(CASES)


def test_predictions_with_other_iterations_are_not_continued(root: Path, model: Path) -> None:
    run_predict(root, model, use_mirroring=False, inference_settings=ONE)
    assert run_predict(root, model, use_mirroring=False, inference_settings=ONE).skipped == list(CASES)
    with pytest.raises(UserError, match=r"with other settings. Different: num_iters \(it was 1\)"):
        run_predict(root, model, use_mirroring=False)


def test_the_option_takes_precedence_over_the_variable(
    root: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("factorizer_nnunet.prediction.predict.predict", lambda r: asked.append(r) or predict(r))
    monkeypatch.setenv(ITERATIONS_VARIABLE, "no number")
    monkeypatch.setenv(SHIFTS_VARIABLE, "1")
    arguments = ["predict", "-m", str(model), "-f", "0", "-i", str(root / "images"), "-o", str(root / "out")]
    options = ["-device", "cpu", "--disable_tta", "-npp", "0", "-nps", "0"]
    assert cli.main([*arguments, *options]) == 2
    assert cli.main([*arguments, *options, "--num-iters", "2"]) == 0
    assert asked[-1].inference_settings == InferenceSettings(num_iters=2)
