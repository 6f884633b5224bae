"""tune-inference measures nnU-Net's own predictions, resumes, and derives a folder that stock commands accept."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from sklearn.model_selection import KFold
from tiny_models import CASES, FACTORIZER, NAME, PLANS, STOCK, assert_equal_within_rounding, run_predict, write_model
from validation_example import VALIDATED, write_validation

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.nnunet.inference_settings import SHIFTS_VARIABLE, InferenceSettings
from factorizer_nnunet.nnunet.model_folder import INFERENCE_FILE
from factorizer_nnunet.tuning import measure, selection
from factorizer_nnunet.tuning.cases import ValidationCases
from factorizer_nnunet.tuning.search_space import SearchSpace
from factorizer_nnunet.tuning.tune import TuningOutcome, TuningRequest, tune

FEW = SearchSpace(iterations=(1,), shifts=(1,), mirroring=("none",), steps=(1.0,))


@pytest.fixture
def validated(root: Path) -> Path:
    return mirrored_model(root)


@pytest.fixture(autouse=True)
def _two_cases_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice needs five cases; two keep these tests short."""
    monkeypatch.setattr(selection, "FEWEST_CASES", 2)


def mirrored_model(root: Path, folds: int = 1) -> Path:
    """A model trained with mirroring along all axes, with its validation cases."""
    model = write_model(root, folds=folds)
    for file in model.glob("fold_*/checkpoint_final.pth"):
        torch.save({**torch.load(file, weights_only=False), "inference_allowed_mirroring_axes": (0, 1, 2)}, file)
    write_validation(root)
    return model


def run_tune(model: Path, **changes: Any) -> TuningOutcome:
    request = {
        "folds": ("0",),
        "device": "cpu",
        "search_space": FEW,
        "tolerance": 0.9,
        "progress_bar": False,
        **changes,
    }
    return tune(TuningRequest(model=model, **request))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_dice_equals_that_of_the_stock_commands_predictions(root: Path, validated: Path) -> None:
    tuned = run_tune(validated)
    run_predict(root, validated)
    run_predict(
        root,
        validated,
        out=root / "fast",
        inference_settings=InferenceSettings(num_iters=1),
        use_mirroring=False,
        tile_step_size=1.0,
    )
    references = root / "nnUNet_preprocessed" / NAME / "gt_segmentations"
    expected = {}
    for name in ("out", "fast"):
        scores = [
            compute_metrics(
                str(references / f"{case}.nii.gz"), str(root / name / f"{case}.nii.gz"), SimpleITKIO(), [1, 2]
            )
            for case in VALIDATED
        ]
        expected[name] = np.mean([score["metrics"][label]["Dice"] for score in scores for label in (1, 2)])
    dice = {row.setting: row.dice for row in tuned.rows}
    assert dice.pop(tuned.reference) == pytest.approx(expected["out"])
    assert list(dice.values()) == pytest.approx([expected["fast"]])


def test_the_derived_folder_gives_the_same_predictions_in_nnunet_and_here(root: Path, validated: Path) -> None:
    before = digests(validated)
    derived = run_tune(
        validated, search_space=SearchSpace(iterations=(2,), shifts=(1,), mirroring=("2",), steps=(0.75,))
    ).derived
    assert derived == validated.parent / f"{FACTORIZER}__{PLANS}_fast__3d_fullres"
    assert digests(validated) == before, "the original has changed"
    assert json.loads((derived / "plans.json").read_text())["plans_name"] == f"{PLANS}_fast"

    predictor = nnUNetPredictor(tile_step_size=0.75, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(derived), (0,))
    assert isinstance(predictor.network, Factorizer)
    assert (predictor.network.config.num_iters, predictor.network.config.num_used_shifts) == (2, 1)
    assert predictor.allowed_mirroring_axes == (2,)
    (root / "stock").mkdir()
    predictor.predict_from_files_sequential(str(root / "images"), str(root / "stock"), save_probabilities=True)
    run_predict(root, derived, save_probabilities=True)
    assert json.loads((root / "out" / "predict_from_raw_data_args.json").read_text())["tile_step_size"] == 0.75
    for case in CASES:
        ours, theirs = (np.load(root / out / f"{case}.npz")["probabilities"] for out in ("out", "stock"))
        assert_equal_within_rounding(ours, theirs)


def test_every_fold_with_a_checkpoint_is_derived(root: Path) -> None:
    model = mirrored_model(root, folds=2)
    derived = run_tune(model).derived
    for fold in range(2):
        there, here = (
            torch.load(folder / f"fold_{fold}" / "checkpoint_final.pth", weights_only=False)
            for folder in (model, derived)
        )
        for name, weight in there["network_weights"].items():
            assert torch.equal(here["network_weights"][name], weight)
        assert here["inference_allowed_mirroring_axes"] is None
        assert (here["init_args"]["fold"], here["init_args"]["plans"]["plans_name"]) == (fold, f"{PLANS}_fast")


def test_an_interrupted_measurement_resumes(root: Path, validated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, measured = [], measure._predicted

    def count(*arguments: Any) -> torch.Tensor:
        if len(predicted) == stop_after:
            raise KeyboardInterrupt
        predicted.append(arguments[2])
        return measured(*arguments)

    monkeypatch.setattr(measure, "_predicted", count)
    stop_after, warming = 2 + 3, 2  # of four measurements, three are taken
    with pytest.raises(KeyboardInterrupt):
        run_tune(validated)
    log = next((validated.parent / "tune_inference").rglob("measurements.jsonl"))
    assert not log.with_name("tune_inference.md").exists()
    lines = log.read_text().splitlines()
    assert len(lines) == 1 + 3
    log.write_text("\n".join([*lines[:-1], lines[-1][:20]]))  # as a kill leaves it
    predicted.clear()
    stop_after = 100
    tuned = run_tune(validated)
    assert len(predicted) == warming + 2
    assert log.read_text().splitlines()[:3] == lines[:3]
    predicted.clear()
    shutil.rmtree(tuned.derived)
    assert run_tune(validated).rows == tuned.rows
    assert predicted == []


def test_only_a_case_whose_label_was_corrected_is_measured_again(
    root: Path, validated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run_tune(validated, measure_only=True)
    predicted, measured = [], measure._predicted
    monkeypatch.setattr(measure, "_predicted", lambda *given: predicted.append(given[2]) or measured(*given))
    label = root / "nnUNet_preprocessed" / NAME / "gt_segmentations" / f"{VALIDATED[0]}.nii.gz"
    image = SimpleITK.ReadImage(str(label))
    SimpleITK.WriteImage(SimpleITK.Flip(image, (True, False, False)), str(label))
    after = run_tune(validated, measure_only=True)
    warming, settings = 2, 2
    assert len(predicted) == warming + settings
    assert after.rows != before.rows


def test_the_page_and_the_printed_table(validated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--iterations", "1", "--shifts", "1", "--mirroring", "none", "--step-sizes", "1", "--tolerance", "0.9"]
    arguments = ["tune-inference", "-m", str(validated), "-device", "cpu", "--disable_progress_bar", *options]
    assert cli.main([*arguments, "--measure-only"]) == 0
    assert not list(validated.parent.glob("*fast*"))
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "| iterations | shifts | mirroring | tile step | Dice " in out
    assert f"-p {PLANS}_fast -step_size 1 -f 0 -i IN -o OUT" in out
    report = validated.parent / "tune_inference" / validated.name
    page = (report / "tune_inference.md").read_text()
    assert "stock command" in page and "**chosen**" in page and "2 of fold 0" in page
    assert (report / "pareto.png").read_bytes().startswith(b"\x89PNG")
    numbers = json.loads((report / "tune_inference.json").read_text())
    assert numbers["chosen"]["mirroring"] == [] and len(numbers["rows"]) == 2


def test_mistakes_are_reported_before_anything_is_written(root: Path, validated: Path) -> None:
    taken = validated.parent / f"{FACTORIZER}__taken__3d_fullres"
    taken.mkdir()
    (validated / "fold_1").mkdir()
    shutil.copy(validated / "fold_0" / "checkpoint_final.pth", validated / "fold_1")
    (validated / "fold_all").mkdir()
    shutil.copy(validated / "fold_0" / "checkpoint_final.pth", validated / "fold_all")
    (root / "file").touch()
    (root / "report").mkdir()
    (root / "report" / "measurements.jsonl").write_text('{"model": "another"}\n')
    before = digests(root)
    for message, changes in {
        "no checkpoint_final.pth of fold 2: name those with -f 0 1": {"folds": ("2",)},
        "splits_final.json has no validation cases of fold 1; name others with -f": {"folds": ("1",)},
        "fold all was trained on every case and has no validation cases": {"folds": ("all",)},
        "-f one: a fold is a number": {"folds": ("one",)},
        "--tolerance -1 must be a loss": {"tolerance": -1},
        "--cases 0 must be at least 1": {"max_cases": 0},
        "--shifts 3: invalid num_shifts=3: expected 1 to 2": {"search_space": SearchSpace(shifts=(3,))},
        f"{taken} exists and is not overwritten. Choose another name": {"plans_name": "taken"},
        "--plans-name 'a__b': nnU-Net's folders are TRAINER__PLANS": {"plans_name": "a__b"},
        "contains measurements of another model or machine": {"report": root / "report"},
        "cannot make": {"report": root / "file" / "below"},
        "there is no model in": {"model": root / "none"},
    }.items():
        with pytest.raises(UserError) as error:
            run_tune(**{"model": validated, **changes})
        assert message in str(error.value)
        (root / "report" / ".lock").unlink(missing_ok=True)
        assert digests(root) == before


def test_a_folder_without_write_permission_is_reported_first(validated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # as root, tests may write anywhere
    with pytest.raises(
        UserError, match=f"no permission to write in {validated.parent}. Change its permissions, or only"
    ):
        run_tune(validated)


def test_missing_data_are_reported(root: Path, validated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = root / "nnUNet_preprocessed" / NAME
    for gone, message in (
        (
            base / "gt_segmentations" / "b.nii.gz",
            "lacks the reference segmentation of b; run: nnUNetv2_preprocess -d 509",
        ),
        (
            base / "nnUNetPlans_3d" / "a.pkl",
            "lacks 1 of the 2 validation cases of fold 0 (a); run: nnUNetv2_preprocess",
        ),
        (
            base / "nnUNetPlans_3d",
            f"no preprocessed data in {base / 'nnUNetPlans_3d'}; run: nnUNetv2_preprocess -d 509 ",
        ),
    ):
        gone.rename(root / "moved")
        with pytest.raises(UserError) as error:
            run_tune(validated)
        assert message in str(error.value)
        (root / "moved").rename(gone)
    monkeypatch.setenv(SHIFTS_VARIABLE, "1")
    with pytest.raises(
        UserError, match=f"the model would not be measured as it was trained. Run: unset .*{SHIFTS_VARIABLE}"
    ):
        run_tune(validated)
    assert not (validated.parent / "tune_inference").exists()


def test_other_networks_are_refused(root: Path) -> None:
    stock = write_model(root, STOCK)
    with pytest.raises(
        UserError, match=r"is a PlainConvUNet, not a Factorizer: it has no iterations and shifts to choose"
    ):
        run_tune(stock)


def test_without_splits_the_folds_are_nnunets(root: Path, validated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from factorizer_nnunet.prediction.model import load_model

    splits = root / "nnUNet_preprocessed" / NAME / "splits_final.json"
    cases = ValidationCases(load_model(validated, ("0",), "checkpoint_final.pth"))
    beyond = cases.of_fold("7")
    assert len(beyond) == 1 and set(beyond) < set(CASES)
    splits.write_text("[")
    with pytest.raises(UserError, match=r"splits_final.json is not valid JSON: .*Correct the file"):
        cases.of_fold("0")
    splits.unlink()
    names = np.array([f"case_{number}" for number in range(7)])
    monkeypatch.setattr(cases, "_dataset", SimpleNamespace(get_identifiers=lambda folder: list(names)))
    folds = KFold(5, shuffle=True, random_state=12345).split(names)  # as nnU-Net's trainer
    assert [cases._validation_cases(fold) for fold in range(5)] == [sorted(names[held_out]) for _, held_out in folds]


def test_unreadable_cases_are_reported(root: Path, validated: Path) -> None:
    reference = root / "nnUNet_preprocessed" / NAME / "gt_segmentations" / f"{VALIDATED[0]}.nii.gz"
    complete = reference.read_bytes()
    small = SimpleITK.GetImageFromArray(np.zeros((3, 4, 5), np.uint8))
    SimpleITK.WriteImage(small, str(reference))
    with pytest.raises(UserError, match=r"gt_segmentations.* has shape \(3, 4, 5\), its image \(7, 17, 20\); run"):
        run_tune(validated)
    reference.write_bytes(complete[:100])
    with pytest.raises(UserError, match=f"{VALIDATED[0]} cannot be read from .*; run: nnUNetv2_preprocess"):
        run_tune(validated)


def test_without_any_region_nothing_is_compared(root: Path, validated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ValidationCases, "dice", lambda *_: {"rim": None, "core": None})
    with pytest.raises(UserError, match="the . measured cases contain no region, nor do their predictions"):
        run_tune(validated)


@pytest.mark.parametrize("step", [0, "fast", True, 1.5])
def test_an_invalid_step_in_a_derived_folder_is_reported(root: Path, model: Path, step: object) -> None:
    (model / INFERENCE_FILE).write_text(json.dumps({"tile_step_size": step}))
    with pytest.raises(
        UserError, match=f"{INFERENCE_FILE}: tile_step_size .* must be above 0 and at most 1. Correct it"
    ):
        run_predict(root, model)
