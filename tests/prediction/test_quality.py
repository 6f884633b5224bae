"""calibrate, predict --quality and --uncertainty on a tiny model: what they write, and that segmentations stay."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from tiny_models import CASES, run_predict, write_image, write_model
from validation_example import write_validation

from factorizer_nnunet.calibration.calibration_file import read_calibration
from factorizer_nnunet.calibration.logit_scaling import LogitScaling
from factorizer_nnunet.cli import main
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import stamp_of
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.nnunet.pass_record import passes_file, read_passes
from factorizer_nnunet.nnunet.training_images import TrainingImages
from factorizer_nnunet.postprocessing.rule_file import write_postprocessing
from factorizer_nnunet.postprocessing.rules import Postprocessing, RegionRule
from factorizer_nnunet.prediction.request import PredictionRequest
from factorizer_nnunet.quality.calibrate import CalibrationRequest, calibrate
from factorizer_nnunet.quality.scalings import scalings_for
from factorizer_nnunet.quality.write import write_quality


def read(file: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


def calibration(model: Path, **changes: Any) -> Any:
    return calibrate(CalibrationRequest(**{"model": model, "device": "cpu", "progress_bar": False, **changes}))


def test_quality_changes_no_segmentation_and_lists_all_cases(root: Path, model: Path) -> None:
    run_predict(root, model, out=root / "plain")
    outcome = run_predict(root, model, quality=True)
    assert outcome.predicted == list(CASES) and not outcome.failed
    for case in CASES:
        np.testing.assert_array_equal(read(root / "out" / f"{case}.nii.gz"), read(root / "plain" / f"{case}.nii.gz"))
        (record,) = read_passes(passes_file(root / "out", case))
        assert record.num_passes == 1 and list(record.regions) == ["rim", "core"] and len(record.channels) == 2
        assert record.spacing_mm == pytest.approx((3.2, 1.7, 1.0))
        for region in record.regions.values():
            assert len(region.agreement) == len(region.confidence) == 1 and len(region.volumes_ml) == 1
    found = write_quality(root / "out")
    assert {case.case for case in found.cases} == set(CASES) and "not calibrated" in found.judges[0].note
    doubts = [case.doubt for case in found.cases]
    assert doubts == sorted(doubts, reverse=True)
    rows = list(csv.DictReader((root / "out" / "quality.csv").open()))
    assert len(rows) == 2 * len(CASES) and all(row["dice"] == "" for row in rows)
    page = found.page.read_text()
    assert all(f'id="volumes-{number}"' in page for number in range(3)) and "raw agreement only" in page
    assert run_predict(root, model, quality=True).skipped == list(CASES)
    assert run_predict(root, model).skipped == list(CASES)


def test_cases_predicted_without_quality_are_predicted_again(root: Path, model: Path) -> None:
    run_predict(root, model)
    assert run_predict(root, model, quality=True).predicted == list(CASES)


def test_an_edited_table_is_kept(root: Path, model: Path) -> None:
    run_predict(root, model, quality=True)
    table = root / "out" / "quality.csv"
    assert write_quality(root / "out").kept == () and write_quality(root / "out").kept == ()
    table.write_text(table.read_text() + "my own notes\n")
    (kept,) = write_quality(root / "out").kept
    assert "my own notes" in kept.read_text() and "my own notes" not in table.read_text()


def test_an_edited_page_is_kept(root: Path, model: Path) -> None:
    run_predict(root, model, quality=True)
    page = write_quality(root / "out").page
    page.write_text(page.read_text().replace("</h1>", ", seen by me</h1>"))
    (kept,) = write_quality(root / "out").kept
    assert "seen by me" in kept.read_text() and "seen by me" not in page.read_text()


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        ('{"models": [{"num_passes": 1, "spac', "not valid JSON"),
        ('{"models": [{"num_passes": 1}]}', "is not a record of --quality"),
        ('{"models": []}', "has passes of 0 models, but 1 model predicted"),
    ],
)
def test_a_damaged_record_is_named_and_predicted_again(root: Path, model: Path, damaged: str, reason: str) -> None:
    run_predict(root, model, quality=True)
    file = passes_file(root / "out", "b")
    file.write_text(damaged)
    with pytest.raises(UserError, match=rf"{re.escape(str(file))}.*{reason}.*predict the case again with --quality"):
        write_quality(root / "out")
    file.unlink()
    assert run_predict(root, model, quality=True).predicted == ["b"]
    assert len(write_quality(root / "out").cases) == len(CASES)


def test_images_that_are_gone_or_have_changed_are_named(root: Path, model: Path) -> None:
    run_predict(root, model, quality=True)
    assert "not those that were predicted from" not in write_quality(root / "out").page.read_text()
    (root / "images" / "b_0001.nii.gz").unlink()
    write_image(root / "images" / "c_0000.nii.gz", 99)
    page = write_quality(root / "out").page.read_text()
    assert "not those that were predicted from: b_0001.nii.gz (removed), c_0000.nii.gz (changed)" in page
    shutil.rmtree(root / "images")
    page = write_quality(root / "out").page.read_text()
    assert "a_0000.nii.gz (removed), a_0001.nii.gz (removed)" in page and '"no image"' in page


def test_an_edited_segmentation_is_named_in_all_files(root: Path, model: Path) -> None:
    run_predict(root, model, quality=True)
    file, names = root / "out" / "b.nii.gz", ("quality.csv", "quality.json", "quality.html")
    write_quality(root / "out")
    assert not any("was edited after" in (root / "out" / name).read_text() for name in names)
    image = SimpleITK.ReadImage(str(file))
    SimpleITK.WriteImage(SimpleITK.Cast(image == 0, SimpleITK.sitkUInt8), str(file))
    found = write_quality(root / "out")
    assert [case.case for case in found.cases if any("was edited after" in flag for flag in case.flags)] == ["b"]
    assert all("was edited after" in (root / "out" / name).read_text() for name in names)


def test_maps_of_other_images_are_set_aside_whatever_is_asked_for(root: Path, model: Path) -> None:
    run_predict(root, model, quality=True, uncertainty=True, save_probabilities=True)
    write_image(root / "images" / "c_0000.nii.gz", 99)
    (root / "out" / "b.nii.gz").unlink()
    write_image(root / "images" / "b_0001.nii.gz", 98)
    outcome = run_predict(root, model, quality=True)
    assert outcome.predicted == ["b", "c"]
    maps = root / "out" / "uncertainty"
    assert sorted(path.name for path in maps.glob("*.nii.gz")) == ["a_disagreement.nii.gz", "a_entropy.nii.gz"]
    assert (maps / "c_entropy.nii.gz.outdated-1").exists() and (maps / "b_entropy.nii.gz.incomplete-1").exists()
    assert [path.name for path in (root / "out").glob("*.npz")] == ["a.npz"]
    assert "c_entropy.nii.gz.outdated-1" in "".join(outcome.set_aside)
    page = write_quality(root / "out").page.read_text()
    assert page.count('"entropy"') == 1


def test_a_map_of_another_grid_is_named(root: Path, model: Path) -> None:
    run_predict(root, model, quality=True, uncertainty=True)
    other = root / "out" / "uncertainty" / "b_entropy.nii.gz"
    SimpleITK.WriteImage(SimpleITK.Image(3, 4, 5, SimpleITK.sitkFloat32), str(other))
    with pytest.raises(UserError, match=rf"b cannot be shown: {re.escape(str(other))} has 3 × 4 × 5 voxels"):
        write_quality(root / "out")
    assert len(json.loads((root / "out" / "quality.json").read_text())["cases"]) == len(CASES), "tables come first"


def test_cases_that_fail_are_on_top_of_the_worklist(
    root: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "images" / "b_0001.nii.gz").write_bytes(b"half")
    options = ["-i", str(root / "images"), "-o", str(root / "out"), "-f", "0", "-device", "cpu"]
    assert main(["predict", "-m", str(model), *options, "-npp", "0", "-nps", "0", "--quality"]) == 1
    capsys.readouterr()
    first, *others = csv.DictReader((root / "out" / "quality.csv").open())
    assert (first["case"], first["rank"]) == ("b", "") and first["flags"].startswith("not predicted: ")
    assert {row["case"] for row in others} == {"a", "c"}
    assert list(json.loads((root / "out" / "quality.json").read_text())["not_predicted"]) == ["b"]
    assert "Not predicted: b: " in (root / "out" / "quality.html").read_text()


def test_nothing_to_compare_is_said(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["-i", str(root / "images"), "-o", str(root / "out"), "-f", "0", "-device", "cpu"]
    options += ["-npp", "0", "-nps", "0"]
    assert main(["predict", "-m", str(model), *options, "--disable_tta", "--quality"]) == 0
    said = f"{model} predicted each case once, so that agreement is not known"
    assert f"note: {said}" in capsys.readouterr().out
    assert said in json.loads((root / "out" / "quality.json").read_text())["models"][0]["note"]
    assert said in (root / "out" / "quality.html").read_text()


def test_several_folds_and_models_are_compared(root: Path) -> None:
    first, second = write_model(root, folds=2), write_model(root, configuration="2d")
    run_predict(root, first, folds=("0", "1"), quality=True)
    (record,) = read_passes(passes_file(root / "out", "a"))
    assert all(len(one.agreement) == 2 and len(one.volumes_ml) == 2 for one in record.regions.values())
    run_predict(root, first, ensemble_with=(second,), quality=True, out=root / "both", images=root / "images")
    assert [one.num_passes for one in read_passes(passes_file(root / "both", "a"))] == [1, 1]
    assert len(write_quality(root / "both").judges) == 2
    with pytest.raises(UserError, match="--uncertainty writes maps of one model"):
        run_predict(root, first, ensemble_with=(second,), uncertainty=True, out=root / "maps")


def test_maps_are_on_the_grid_of_the_image(root: Path, model: Path) -> None:
    scalings = {
        "background": LogitScaling(2.0, 0.0),
        "rim": LogitScaling(2.0, -0.5),
        "core": LogitScaling(1.5, 0.7),
    }
    run_predict(root, model, out=root / "plain", save_probabilities=True)
    run_predict(root, model, uncertainty=True, scalings=scalings)
    image = SimpleITK.ReadImage(str(root / "images" / "a_0000.nii.gz"))
    np.testing.assert_array_equal(read(root / "out" / "a.nii.gz"), read(root / "plain" / "a.nii.gz"))
    names = ("entropy", "disagreement", "probability_rim", "probability_core", "probability_background")
    maps = {name: SimpleITK.ReadImage(str(root / "out" / "uncertainty" / f"a_{name}.nii.gz")) for name in names}
    for one in maps.values():
        assert one.GetSize() == image.GetSize() and one.GetSpacing() == pytest.approx(image.GetSpacing())
        values = SimpleITK.GetArrayFromImage(one)
        assert values.min() >= 0 and values.max() <= 1
    raw = np.load(root / "plain" / "a.npz")["probabilities"]
    logits = np.log(raw / (1 - raw))
    temperatures, offsets = np.array([[2, 2, 1.5], [0, -0.5, 0.7]])[..., None, None, None]
    expected = 1 / (1 + np.exp(-logits / temperatures - offsets))
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(maps["probability_core"]), expected[2], atol=2e-3)
    q = expected / expected.sum(0)
    entropy = -(q * np.log(q)).sum(0) / np.log(3)
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(maps["entropy"]), entropy, atol=2e-3)
    with pytest.raises(UserError, match="maps of another calibration"):
        run_predict(root, model, uncertainty=True, scalings={})
    assert run_predict(root, model).skipped == list(CASES)


def test_too_few_cases_give_calibrated_probabilities_but_no_estimate(
    root: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_validation(root)
    found = calibration(model)
    assert "2 validation cases of fold 0 will be predicted" in capsys.readouterr().out
    assert found.num_cases == {"0": 2} and "10 out-of-fold cases" in found.note
    assert all(region.model is None and region.num_all == 2 for region in found.regions.values())
    assert set(found.outputs) == {"background", "rim", "core"}
    assert repr(read_calibration(model)) == repr(found)
    calibration(model)
    assert "will be predicted" not in capsys.readouterr().out, "known cases are not predicted again"
    (model / "quality_calibration.jsonl").write_text((model / "quality_calibration.jsonl").read_text()[:-30])
    assert repr(calibration(model)) == repr(found)
    assert "1 validation case of fold 0 (1 were predicted before)" in capsys.readouterr().out


def test_a_calibration_is_used_only_for_its_checkpoints_and_settings(root: Path, model: Path) -> None:
    write_validation(root)
    calibration(model)
    run_predict(root, model, quality=True)
    assert "10 out-of-fold cases" in write_quality(root / "out").judges[0].note
    run_predict(root, model, quality=True, use_mirroring=False, out=root / "other")
    assert "use_mirroring was True, is False" in write_quality(root / "other").judges[0].note
    file = model / "quality_calibration.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "checkpoints": {"0": "another"}}))
    assert "fold 0 has been trained further" in write_quality(root / "out").judges[0].note
    file.write_text("{}")
    with pytest.raises(UserError, match="another version"):
        write_quality(root / "out")


@pytest.mark.parametrize("name", ["exported", "exported.zip"])
def test_a_calibration_travels_with_its_model(root: Path, model: Path, name: str) -> None:
    write_validation(root)
    (model / "dataset_fingerprint.json").write_text(
        json.dumps({"spacings": [[1, 1, 1]], "shapes_after_crop": [[9, 9, 9]], "foreground": "secret"})
    )
    found = calibration(model)
    exported = root / name
    assert main(["export", "-m", str(model), "-f", "0", "-o", str(exported)]) == 0
    run_predict(root, exported, quality=True)
    (judge,) = write_quality(root / "out").judges
    assert judge.calibration is not None and judge.calibration.outputs.keys() == found.outputs.keys()
    assert judge.training != TrainingImages() and judge.channel_names == ("T1", "T2")
    scalings, note = scalings_for(PredictionRequest(model=exported, images=root / "images", out=root / "maps"))
    assert scalings == {name: one.scaling for name, one in found.outputs.items()} and note == ""
    if exported.is_dir():
        files = [file.read_text() for file in exported.glob("*.json")]
        assert not any("secret" in text or '"case"' in text for text in files), "names of patients stay at home"


def test_a_calibration_of_other_checkpoints_is_not_exported(
    root: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_validation(root)
    calibration(model)
    file = model / "quality_calibration.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "checkpoints": {"0": "another"}}))
    assert main(["export", "-m", str(model), "-f", "0", "-o", str(root / "exported")]) == 2
    assert f"{file} does not fit: fold 0 has been trained further" in capsys.readouterr().err
    assert not (root / "exported").exists()


def test_a_calibration_of_other_folds_is_left_out(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_validation(root)
    calibration(model)
    file = model / "quality_calibration.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "checkpoints": {"3": "another"}}))
    assert main(["export", "-m", str(model), "-f", "0", "-o", str(root / "exported")]) == 0
    assert "note: quality_calibration.json is left out" in capsys.readouterr().out
    assert not (root / "exported" / file.name).exists()


def test_rules_of_postprocessing_are_part_of_a_calibration(root: Path, model: Path) -> None:
    write_validation(root)
    plain = calibration(model)
    run_predict(root, model, quality=True)
    folder, dataset = ModelFolder(model), DatasetJson.read(model / "dataset.json")
    rules = Postprocessing({"rim": RegionRule(threshold=0.99), "core": RegionRule(threshold=0.99)}, dataset)
    write_postprocessing(folder.postprocessing_file, rules, {"0": stamp_of(folder.fold(0).checkpoint()).sha256}, {})
    ruled = calibration(model)
    assert any(one.median_dice != plain.regions[name].median_dice for name, one in ruled.regions.items())
    (judge,) = write_quality(root / "out").judges
    again = f"calibrate -m {model} -step_size 0.5 --no-postprocessing, which replaces it"
    assert "its cases were postprocessed by other rules" in judge.note and again in judge.note
    run_predict(root, model, quality=True, out=root / "ruled")
    assert write_quality(root / "ruled").judges[0].calibration is not None
    assert (
        scalings_for(PredictionRequest(model=model, images=root / "images", out=root / "maps", folds=("0",)))[1] == ""
    )
    calibration(model, postprocessing=False)
    assert write_quality(root / "out").judges[0].calibration is not None


def test_cases_that_a_fold_was_not_validated_on_are_refused(root: Path, model: Path) -> None:
    write_validation(root)
    summary = ModelFolder(model).fold(0).summary
    summary.parent.mkdir(parents=True, exist_ok=True)
    scored = [{"reference_file": f"/old/place/{case}.nii.gz"} for case in ("a", "c", "gone")]
    summary.write_text(json.dumps({"metric_per_case": scored}))
    with pytest.raises(UserError, match=r"splits_final.json names validation cases of fold 0 .* not validated \(b\)"):
        calibration(model)
    scored.append({"reference_file": "/old/place/b.nii.gz"})
    summary.write_text(json.dumps({"metric_per_case": scored}))
    calibration(model)


def test_the_commands(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_validation(root)
    assert main(["calibrate", "-m", str(model), "-device", "cpu", "-f", "0"]) == 0
    out = capsys.readouterr().out
    assert "no estimate" in out and "temperature" in out and str(model / "quality_calibration.json") in out
    options = [
        "-i",
        str(root / "images"),
        "-o",
        str(root / "out"),
        "-f",
        "0",
        "-device",
        "cpu",
        "-npp",
        "0",
        "-nps",
        "0",
    ]
    assert main(["predict", "-m", str(model), *options, "--quality", "--uncertainty"]) == 0
    assert "quality: 3 cases" in capsys.readouterr().out
    assert (root / "out" / "uncertainty" / "a_probability_core.nii.gz").is_file()
    assert main(["calibrate", "-m", str(model), "-f", "all"]) == 2


def test_a_case_of_unknown_doubt_comes_first(root: Path, model: Path) -> None:
    run_predict(root, model, quality=True)
    file = passes_file(root / "out", "b")
    content = json.loads(file.read_text())
    for region in content["models"][0]["regions"].values():
        region |= {"agreement": [None], "confidence": [None], "fold_agreement": None}
    file.write_text(json.dumps(content))
    found = write_quality(root / "out").cases
    assert found[0].case == "b" and np.isnan(found[0].doubt)
    with (root / "out" / "quality.csv").open() as table:
        assert next(csv.DictReader(table))["doubt"] == ""
    assert json.loads((root / "out" / "quality.json").read_text())["cases"][0]["doubt"] is None
