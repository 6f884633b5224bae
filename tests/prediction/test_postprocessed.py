"""Predictions with the rules in a model's folder, from the command and from Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from tiny_models import DATASET, run_predict

from factorizer_nnunet import Predictor, cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import stamp_of
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.postprocessing.rule_file import write_postprocessing
from factorizer_nnunet.postprocessing.rules import Postprocessing, RegionRule

RULES = Postprocessing(
    {"rim": RegionRule(threshold=0.6, largest_only=True), "core": RegionRule(min_lesion_mm3=30, fill_holes=True)},
    DatasetJson(DATASET),
)


@pytest.fixture
def tuned(model: Path) -> Path:
    folder = ModelFolder(model)
    checkpoints = {"0": stamp_of(folder.fold(0).checkpoint()).sha256}
    write_postprocessing(folder.postprocessing_file, RULES, checkpoints, {})
    return model


def _labels(folder: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "a.nii.gz")))


def test_rules_are_used_recorded_and_can_be_left_out(root: Path, tuned: Path) -> None:
    outcome = run_predict(root, tuned, use_mirroring=False)
    assert outcome.failed == {} and outcome.postprocessing is not None and outcome.postprocessing.rules == RULES.rules
    plain = run_predict(root, tuned, out=root / "plain", save_probabilities=True, postprocessing=False)
    assert plain.postprocessing is None
    plain = run_predict(root, tuned, out=root / "plain_fast", use_mirroring=False, postprocessing=False)
    with_probabilities = run_predict(root, tuned, out=root / "both", use_mirroring=False, save_probabilities=True)
    assert with_probabilities.failed == {}
    probabilities = np.load(root / "both/a.npz")["probabilities"]
    decided = (probabilities * np.array([1, 0.4 / 0.6, 1])[:, None, None, None]).argmax(0)
    spacing = (3.2, 1.7, 1.0)
    expected = RULES.cleaned(decided.astype(np.uint8), spacing)
    assert (_labels(root / "plain_fast") != expected).any()
    np.testing.assert_array_equal(_labels(root / "out"), expected)
    np.testing.assert_array_equal(_labels(root / "both"), expected)
    record = json.loads((root / "out/predict_from_raw_data_args.json").read_text())
    assert record["postprocessing"]["rim"]["threshold"] == 0.6
    assert "postprocessing" not in json.loads((root / "plain/predict_from_raw_data_args.json").read_text())
    with pytest.raises(UserError, match="Different: postprocessing"):
        run_predict(root, tuned, use_mirroring=False, postprocessing=False)


def test_python_gives_the_same(root: Path, tuned: Path) -> None:
    run_predict(root, tuned, use_mirroring=False)
    files = [root / f"images/a_000{channel}.nii.gz" for channel in range(2)]
    for wanted in (False, True):
        predictor = Predictor(tuned, device="cpu", use_mirroring=False)
        np.testing.assert_array_equal(predictor.predict(files, probabilities=wanted).labels, _labels(root / "out"))
    plain = Predictor(tuned, device="cpu", use_mirroring=False, postprocessing=False).predict(files).labels
    assert (plain != _labels(root / "out")).any()


def test_the_command_says_which_rules_and_refuses_those_of_another_training(
    root: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", "-m", str(tuned), "-i", str(root / "images"), "-o", str(root / "out"), "-f", "0"]
    arguments += ["-device", "cpu", "--disable_tta", "-npp", "0", "-nps", "0"]
    assert cli.main(arguments) == 0
    assert "rim: threshold 0.6, only the largest component kept; core: holes filled" in capsys.readouterr().out
    file = ModelFolder(tuned).postprocessing_file
    content = json.loads(file.read_text())
    content["checkpoints"]["0"] = "of another training"
    file.write_text(json.dumps(content))
    assert cli.main([*arguments, "-o", str(root / "new")]) == 2
    assert "other checkpoints than that of fold 0" in capsys.readouterr().err and not (root / "new").exists()


def test_skipped_tiles_stay_background(root: Path, tuned: Path) -> None:
    rules = Postprocessing({"rim": RegionRule(threshold=0.1)}, DatasetJson(DATASET))
    file = ModelFolder(tuned).postprocessing_file
    file.unlink()
    write_postprocessing(file, rules, {"0": stamp_of(ModelFolder(tuned).fold(0).checkpoint()).sha256}, {})
    with pytest.raises(UserError, match="--skip-empty-tiles"):
        run_predict(root, tuned, skip_empty_tiles=True)
