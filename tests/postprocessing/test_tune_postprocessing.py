"""The command tune-postprocessing on made-up models whose best rules are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from benchmarks.postprocessing import LESION_THRESHOLD, cases_of, write_study
from factorizer_nnunet import cli
from factorizer_nnunet.evaluation.case import score_arrays
from factorizer_nnunet.evaluation.regions import regions_of
from factorizer_nnunet.evaluation.schemes import scheme_named
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.postprocessing.rules import RegionRule
from factorizer_nnunet.report.statistics import estimate
from factorizer_nnunet.tuning import candidate_rules, rule_search
from factorizer_nnunet.tuning.challenge_score import metrics_of, score_of
from factorizer_nnunet.tuning.nested_choice import Choice, choose
from factorizer_nnunet.tuning.rule_case import Objective, RuleCase, TunedCase


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search takes as long as it has candidates."""
    monkeypatch.setattr(candidate_rules, "THRESHOLDS", (0.2, 0.3, 0.5))
    monkeypatch.setattr(candidate_rules, "MIN_LESIONS_MM3", (0.0, 20.0, 2000.0))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return write_study(tmp_path, range(12), flawed=True)


def _tune(model: Path, *more: str) -> int:
    return cli.main(["tune-postprocessing", "-m", str(model), *more])


def _rules(model: Path) -> dict[str, dict]:
    return json.loads(ModelFolder(model).postprocessing_file.read_text())["regions"]


def test_known_best_rules_are_found_and_a_second_call_scores_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["tune-postprocessing", "-d", "701", "-c", "3d_fullres"]) == 0
    rules = _rules(model)
    assert rules["organ"]["largest_only"] and rules["organ"]["fill_holes"]
    assert rules["lesion"]["threshold"] == pytest.approx(LESION_THRESHOLD)
    assert rules["lesion"]["min_lesion_mm3"] == 20
    folder = model.parent / "tune_postprocessing" / model.name
    numbers = json.loads((folder / "tune_postprocessing.json").read_text())
    for region in ("organ", "lesion"):
        assert numbers["regions"][region]["gain"]["low"] > 0
        change = numbers["held_out"][region]["dice"]
        assert change["change"]["low"] > 0.01
        assert change["after"]["mean"] - change["before"]["mean"] == pytest.approx(change["change"]["mean"])
    page = (folder / "tune_postprocessing.html").read_text()
    assert "12 cases" in page and "threshold 0.3, components below 20 mm³ removed" in page
    assert "which predict and run now use" in capsys.readouterr().out
    before = ModelFolder(model).postprocessing_file.read_bytes()
    monkeypatch.setattr(RuleCase, "score", lambda *_: pytest.fail("scored again"))
    assert _tune(model) == 0
    assert ModelFolder(model).postprocessing_file.read_bytes() == before


def test_without_probabilities_it_says_how_to_get_them(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "fold_3/validation/case_003.npz").unlink()
    assert _tune(model) == 0
    warned = capsys.readouterr().err
    assert "thresholds are not tuned: 1 of 12 cases have no probabilities (case_003)" in warned and "--npz" in warned
    assert _rules(model)["organ"]["largest_only"]
    assert {rule["threshold"] for rule in _rules(model).values()} == {0.5}


def test_an_edited_file_is_kept_and_a_new_tuning_without_gain_sets_an_old_one_aside(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ModelFolder(model).postprocessing_file
    file.write_text('{"regions": {}, "sha256": ""}')
    assert _tune(model) == 2
    assert "was edited" in capsys.readouterr().err and file.read_text().startswith('{"regions": {}')
    file.unlink()
    monkeypatch.setattr(candidate_rules, "THRESHOLDS", (0.5,))
    assert _tune(model, "-f", "0", "1", "2", "3") == 0
    content = json.loads(file.read_text())
    assert (list(content["checkpoints"]), content["tuned"]["folds"]) == ([*"01234"], [*"0123"])
    monkeypatch.setattr(rule_search, "MIN_CASES", 13)
    assert _tune(model) == 0
    assert not file.exists() and file.with_name(f"{file.name}.outdated-1").is_file()
    assert "nothing was written" in capsys.readouterr().out


def test_few_cases_and_changed_files_are_refused_or_said(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _tune(model, "-f", "0", "1") == 0  # six cases, in five groups
    assert "6 cases are too few to tell a gain from noise" in capsys.readouterr().err
    assert not ModelFolder(model).postprocessing_file.exists()
    assert _tune(model, "-f", "7") == 2
    assert "fold 7 has no finished validation" in capsys.readouterr().err
    (model / "fold_2/checkpoint_final.pth").unlink()
    assert _tune(model) == 2
    assert "rules belong to the checkpoints that predicted" in capsys.readouterr().err


def test_probabilities_of_another_prediction_are_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (model / f"fold_{fold}/validation/case_00{fold}.npz" for fold in range(2))
    one.write_bytes(other.read_bytes())
    assert _tune(model) == 2
    assert f"{one}: contradicts case_000.nii.gz" in capsys.readouterr().err
    assert not ModelFolder(model).postprocessing_file.exists()


@pytest.mark.parametrize("scheme", ["none", "brats2023-met", "brats2024-met"])
def test_scores_of_a_case_are_those_of_the_challenge(model: Path, tmp_path: Path, scheme: str) -> None:
    """Shortcuts for unchanged regions and crops change nothing."""
    names = {"background": 0, "non-enhancing tumor core": 1, "enhancing tumor": 2, "peritumoral edema": 3}
    dataset = DatasetJson.read(model / "dataset.json")
    dataset = dataset if scheme == "none" else DatasetJson({**dataset.content, "labels": names})
    regions = regions_of(dataset, scheme_named(scheme))
    threshold = 0.3 if scheme == "none" else 0.5  # the model has no probability of the edema
    loaded = RuleCase(cases_of(model)[0], Objective(dataset, regions), thresholds=threshold < 0.5)
    rules = {next(iter(dataset.regions)): RegionRule(largest_only=True, threshold=threshold)}
    values = loaded.values(rules)
    labels, reference = np.zeros((40, 36, 20), np.uint8), np.zeros((40, 36, 20), np.uint8)
    labels[loaded._box], reference[loaded._box] = loaded.with_rules(rules), loaded._reference
    direct = score_arrays(labels, reference, (1.0, 1.0, 2.0), regions.labels, regions.scheme, ())
    assert values.keys() == direct.keys()
    for name, found in values.items():
        for metric in metrics_of(regions.scheme):
            assert found[metric] == pytest.approx(direct[name].values[metric], nan_ok=True)
    case, objective = cases_of(model)[0], Objective(dataset, regions)
    name, scores, problem = rule_search._case_scores(case, objective, False, tmp_path / "scores")
    assert (name, problem) == ("case_000", None) and scores[next(iter(rules))][0] == loaded.score({})
    assert rule_search._case_scores(case, objective, False, tmp_path / "scores")[1] == scores


@pytest.mark.parametrize("scheme", ["brats2021", "brats2023-met", "brats2024-met", "brats2024-men-rt"])
def test_a_region_that_is_missed_has_the_worst_distance(model: Path, scheme: str) -> None:
    """Whatever a challenge takes for a missed lesion: a number, the diagonal in mm, or that in voxels."""
    names = {"background": 0, "non-enhancing tumor core": 1, "enhancing tumor": 2, "peritumoral edema": 3}
    names = {"background": 0, "GTV": 1, "rest": 2} if scheme == "brats2024-men-rt" else names
    dataset = DatasetJson({**DatasetJson.read(model / "dataset.json").content, "labels": names})
    regions = regions_of(dataset, scheme_named(scheme))
    loaded = RuleCase(cases_of(model)[0], Objective(dataset, regions), thresholds=False)
    nothing = {name: RegionRule(min_lesion_mm3=1e9) for name in dataset.regions}
    present = [name for name, values in regions.labels.items() if np.isin(loaded._reference, values).any()]
    scores = loaded.values(nothing)
    assert present and all(scores[name]["score"] == pytest.approx(0, abs=1e-3) for name in present)


def test_a_2d_image_is_scored_by_its_outline(tmp_path: Path) -> None:
    """A square of 24 pixels against one that is a pixel wider: as a slab, mostly of faces, their HD95 would be 0."""
    labels = {"background": 0, "non-enhancing tumor core": 1, "enhancing tumor": 2, "peritumoral edema": 3}
    dataset = DatasetJson({"labels": labels, "channel_names": {"0": "T1"}, "file_ending": ".nii.gz", "numTraining": 1})
    arrays = np.zeros((2, 40, 30), np.uint8)
    arrays[:, 8:32, 4:28] = 2
    arrays[1, 32, 4:28] = 2
    files = [tmp_path / f"{name}.nii.gz" for name in ("reference", "prediction")]
    for file, array in zip(files, arrays, strict=True):
        image = sitk.GetImageFromArray(array.T)
        image.SetSpacing((0.5, 2.0))
        sitk.WriteImage(image, str(file))
    regions = regions_of(dataset, scheme_named("brats2024-met"))
    case = RuleCase(TunedCase("case", "0", *files, None), Objective(dataset, regions), thresholds=False)
    direct = score_arrays(arrays[1], arrays[0], (0.5, 2.0, 1.0), regions.labels, regions.scheme, ())
    for name, found in case.values({}).items():
        for metric in metrics_of(regions.scheme):
            assert found[metric] == pytest.approx(direct[name].values[metric], nan_ok=True)
    assert case.values({})["enhancing tumor"]["lesion_hd95"] == pytest.approx(0.5)
    assert case._worst_mm() == pytest.approx(np.hypot(40, 30))  # the scheme's diagonal is in voxels


def test_each_metric_becomes_a_share() -> None:
    values = {"dice": 0.8, "volume_error": 1.0, "volume_reference": 4.0, "volume_prediction": 3.0}
    assert score_of(values, ("dice", "volume_error"), 1.0) == pytest.approx((0.8 + 0.75) / 2)
    assert score_of({"lesion_hd95": 93.5, "lesion_dice": 0.5}, ("lesion_dice", "lesion_hd95"), 374.0) == 0.625
    assert score_of({"dice": np.nan}, ("dice",), 1.0) == 1
    assert metrics_of(scheme_named("none")) == ("dice",)
    assert metrics_of(scheme_named("brats2024-gli")) == metrics_of(scheme_named("brats2025-gli"))
    assert "lesion_f1" in metrics_of(scheme_named("isles2022")) and "volume_error" in metrics_of(
        scheme_named("isles2022")
    )


def test_with_more_regions_a_gain_must_be_clearer() -> None:
    """A gain whose 95 % interval is just above 0 is kept for one region, and not for one of ten."""
    gains = np.array([-0.02] * 10 + [0.06] * 10)
    assert estimate(gains).low > 0 > estimate(gains, 1 - 0.05 / 10).low
    choice = Choice(final=1, by_group={}, gains=gains)
    assert rule_search.RuleSearch._is_beyond_noise(choice, 1)
    assert not rule_search.RuleSearch._is_beyond_noise(choice, 10)


def test_gains_are_of_cases_without_a_part_in_the_choice() -> None:
    """Each candidate is best for one case alone: chosen on the others, it gains nothing there."""
    scores = np.zeros((6, 7))
    scores[np.arange(6), np.arange(1, 7)] = 1
    choice = choose(scores, [str(number) for number in range(6)])
    assert choice.gains.max() == 0 and scores[:, choice.final].mean() > 0
    scores[:, 3] = 0.5
    choice = choose(scores, ["a", "a", "b", "b", "c", "c"])
    assert choice.final == 3 and choice.agreeing == 3 and (choice.gains == [0.5] * 6).all()
