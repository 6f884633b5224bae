"""Cases without some channels: predicted as the training saw them by models trained for it, refused by others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tiny_models import CASES, FACTORIZER, STOCK, run_predict, write_cascade, write_model

from factorizer_nnunet import Predictor, cli
from factorizer_nnunet.core.errors import UserError

DROPS = f"{FACTORIZER}_channeldrop"


def labels(folder: Path, case: str) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / f"{case}.nii.gz")))


def zeros_for(file: Path, example: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(example)) * 0, str(file))


def by_hand(model: Path, root: Path, case: str, absent: int) -> np.ndarray:
    """Labels of a case of two channels, of which the training would have set one to 0 and doubled the other."""
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    present = root / "images" / f"{case}_{1 - absent:04d}.nii.gz"
    files = [str(present)] * 2
    settings = (predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json)
    data, _, properties = predictor.configuration_manager.preprocessor_class(verbose=False).run_case(
        files, None, *settings
    )
    data = 2 * data
    data[absent] = 0
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
    label_manager = settings[0].get_label_manager(settings[2])
    return convert_predicted_logits_to_segmentation_with_correct_shape(logits, *settings[:2], label_manager, properties)


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_absent_channels_are_as_in_training(root: Path, configuration: str) -> None:
    model = write_model(root, DROPS, configuration)
    complete = run_predict(root, model, out=root / "complete", use_mirroring=False)
    assert complete.predicted == list(CASES) and complete.warnings == {}
    for name in ("a_0000", "b_0001"):
        (root / "images" / f"{name}.nii.gz").unlink()
    outcome = run_predict(root, model, use_mirroring=False)
    assert (outcome.predicted, outcome.failed) == (list(CASES), {})
    assert outcome.warnings == {"a": "channel 0 (T1) is absent", "b": "channel 1 (T2) is absent"}
    for case, absent in (("a", 0), ("b", 1)):
        assert (labels(root / "out", case) == by_hand(model, root, case, absent)).mean() > 0.999
        assert (labels(root / "out", case) != labels(root / "complete", case)).any()
        sources = json.loads((root / "out" / ".factorizer" / f"{case}.json").read_text())["sources"]
        assert {f"image {absent}, absent", f"image {1 - absent}"} <= sources.keys()
        assert f"image {absent}" not in sources
    np.testing.assert_array_equal(labels(root / "out", "c"), labels(root / "complete", "c"))


def test_images_of_zeros_are_absent_channels(root: Path) -> None:
    model, images = write_model(root, DROPS), root / "images"
    (images / "b_0000.nii.gz").unlink()
    run_predict(root, model, use_mirroring=False)
    zeros_for(images / "b_0000.nii.gz", images / "b_0001.nii.gz")
    outcome = run_predict(root, model, out=root / "zeros", use_mirroring=False)
    assert outcome.warnings == {"b": "channel 0 (T1) is absent"}
    np.testing.assert_array_equal(labels(root / "zeros", "b"), labels(root / "out", "b"))


def test_a_channel_that_comes_later_is_used(root: Path) -> None:
    model, file = write_model(root, DROPS), root / "images" / "c_0001.nii.gz"
    content = file.read_bytes()
    file.unlink()
    assert run_predict(root, model, use_mirroring=False).predicted == list(CASES)
    assert run_predict(root, model, use_mirroring=False).skipped == list(CASES)
    file.write_bytes(content)
    again = run_predict(root, model, use_mirroring=False)
    assert (again.predicted, again.skipped) == (["c"], ["a", "b"])
    assert "image 1 (added), image 1, absent (removed)" in again.set_aside[0]


@pytest.mark.parametrize(
    ("trainer", "advised"), [(FACTORIZER, f"{FACTORIZER}_channeldrop"), (STOCK, "nnUNetTrainerFactorizer_channeldrop")]
)
def test_other_models_refuse_and_name_the_trainer(
    root: Path, trainer: str, advised: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(root, trainer)
    (root / "images" / "b_0001.nii.gz").unlink()
    arguments = ["predict", "-m", str(model), "-f", "0", "-i", str(root / "images"), "-o", str(root / "out")]
    assert cli.main([*arguments, "-device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "b lacks _0001" in error
    assert f"A model that predicts cases without all channels is trained with -tr {advised}" in error
    assert not (root / "out").exists()


def test_each_model_of_an_ensemble_must_be_trained_for_it(root: Path) -> None:
    drops, ordinary = write_model(root, DROPS), write_model(root, FACTORIZER)
    other = write_model(root, DROPS, "2d")
    (root / "images" / "a_0001.nii.gz").unlink()
    with pytest.raises(UserError, match="a lacks _0001"):
        run_predict(root, drops, ensemble_with=(ordinary,))
    assert run_predict(root, drops, ensemble_with=(other,), use_mirroring=False).predicted == list(CASES)


def test_a_cascade_predicts_without_a_channel(root: Path) -> None:
    lowres = write_model(root, DROPS, "3d_lowres")
    (root / "images" / "b_0000.nii.gz").unlink()
    run_predict(root, lowres, out=root / "lowres", use_mirroring=False)
    outcome = run_predict(root, write_cascade(root, DROPS), previous_stages=(root / "lowres",), use_mirroring=False)
    assert (outcome.predicted, outcome.failed) == (list(CASES), {})


def test_a_case_has_one_channel_at_least_and_no_unknown_ones(root: Path) -> None:
    model, images = write_model(root, DROPS), root / "images"
    (images / "a_0000.nii.gz").rename(images / "a_0004.nii.gz")
    with pytest.raises(UserError, match="a has unexpected _0004"):
        run_predict(root, model)


def test_absent_channels_from_python(root: Path) -> None:
    model, file = write_model(root, DROPS), root / "images" / "b_0001.nii.gz"
    predictor = Predictor(model, device="cpu", use_mirroring=False)
    (root / "images" / "b_0000.nii.gz").unlink()
    run_predict(root, model, use_mirroring=False)
    expected, image = labels(root / "out", "b"), SimpleITK.ReadImage(str(file))
    array = SimpleITK.GetArrayFromImage(image)
    from_image = predictor.predict([None, image]).labels
    for found in (
        predictor.predict([None, file]).labels,
        SimpleITK.GetArrayFromImage(from_image),
        predictor.predict(np.stack([0 * array, array]), spacing=image.GetSpacing()[::-1]).labels,
    ):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(UserError, match="at least one channel"):
        predictor.predict([None, None])
    ordinary = Predictor(write_model(root, FACTORIZER), device="cpu")
    with pytest.raises(UserError, match=r"channel 1 is None, but .* needs all\. A model that predicts"):
        ordinary.predict([file, None])
