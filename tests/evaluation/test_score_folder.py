"""Pairs and folders of label files: what is scored, known pitfalls, and invalid input."""

from __future__ import annotations

import json
import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from score_example import AFFINE, DATASET, edited, labels_of, write, write_folders

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation import evaluate as scoring
from factorizer_nnunet.evaluation.dataset_files import find_dataset_json
from factorizer_nnunet.evaluation.empty import DEFAULT_POLICY, changed
from factorizer_nnunet.evaluation.evaluate import evaluate_folder, evaluate_pairs
from factorizer_nnunet.evaluation.lesions import LesionRule
from factorizer_nnunet.evaluation.overlap import dice_of_regions
from factorizer_nnunet.evaluation.pairs import CasePair
from factorizer_nnunet.evaluation.reading import read_labels
from factorizer_nnunet.evaluation.regions import regions_of
from factorizer_nnunet.evaluation.schemes import SCHEMES, scheme_named
from factorizer_nnunet.evaluation.scores import Scores
from factorizer_nnunet.nnunet.dataset_json import DatasetJson

VOXEL_MM3 = 0.5 * 0.8 * 3.0


def one_case(root: Path, reference: np.ndarray, prediction: np.ndarray, affine: np.ndarray = AFFINE) -> tuple:
    write(root / "r" / "a.nii.gz", reference, affine)
    write(root / "p" / "a.nii.gz", prediction, affine)
    return root / "p", root / "r"


def test_regions_are_scored_as_regions(tmp_path: Path) -> None:
    """The prediction confuses the labels within the region: "whole" is perfect, "core" is missing."""
    reference = labels_of(0)
    prediction = np.where(reference > 0, 1, 0).astype(np.uint8)
    scores = evaluate_folder(*one_case(tmp_path, reference, prediction), DATASET)
    assert scores.regions == ("whole", "core")
    assert scores.value("a", "whole", "dice") == 1.0
    assert scores.value("a", "core", "dice") == 0.0
    plain = evaluate_folder(
        tmp_path / "p", tmp_path / "r", DatasetJson({"labels": {"background": 0, "edge": 1, "core": 2}})
    )
    assert plain.value("a", "edge", "dice") < 1.0
    assert evaluate_folder(tmp_path / "p", tmp_path / "r").regions == ("1", "2")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_distances_are_in_mm_along_the_right_axis(tmp_path: Path, axis: int) -> None:
    reference = np.zeros((12, 11, 10), np.uint8)
    reference[3:6, 3:6, 3:6] = 1
    prediction = np.roll(reference, 2, axis)
    scores = evaluate_folder(*one_case(tmp_path, reference, prediction))
    assert scores.value("a", "1", "hd95") == pytest.approx(2 * (0.5, 0.8, 3.0)[axis])
    assert scores.value("a", "1", "volume_reference") == pytest.approx(27 * VOXEL_MM3 / 1000)


def test_turned_grids_have_the_same_distances(tmp_path: Path) -> None:
    reference = labels_of(1)
    prediction = np.roll(reference, 1, 2)
    turn = np.deg2rad(20)
    turned = AFFINE.copy()
    turned[:2, :2] = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ AFFINE[:2, :2]
    straight = evaluate_folder(*one_case(tmp_path / "straight", reference, prediction))
    oblique = evaluate_folder(*one_case(tmp_path / "turned", reference, prediction, turned))
    assert oblique.table == pytest.approx(straight.table, rel=1e-5, nan_ok=True)


def test_float_and_scaled_labels_are_the_integers_they_stand_for(tmp_path: Path) -> None:
    predictions, references = write_folders(tmp_path, 2)
    plain = evaluate_folder(predictions, references)
    write(predictions / "case_0.nii.gz", labels_of(100).astype(np.float32))
    write(references / "case_0.nii.gz", (labels_of(0).astype(np.uint16) * 1000), slope=1 / 1000.00001)
    assert evaluate_folder(predictions, references).table == plain.table


def test_nrrd_and_mha_are_read_with_their_spacing(tmp_path: Path) -> None:
    predictions, references = write_folders(tmp_path, 1)
    expected = evaluate_folder(predictions, references)
    for folder, ending in ((predictions, ".nrrd"), (references, ".mha")):
        path = folder / "case_0.nii.gz"
        sitk.WriteImage(sitk.ReadImage(str(path)), str(folder / f"case_0{ending}"))
        path.unlink()
    found = evaluate_folder(predictions, references)
    assert found.table == pytest.approx(expected.table, rel=1e-6, nan_ok=True)


def test_ignored_voxels_are_in_no_mask(tmp_path: Path) -> None:
    reference, prediction = labels_of(0) > 0, labels_of(0) > 0
    prediction[0, 0, :4] = True
    labels = reference.astype(np.uint8)
    labels[0, 0, :4] = 2
    folders = one_case(tmp_path, labels, prediction.astype(np.uint8))
    scores = evaluate_folder(*folders, DatasetJson({"labels": {"background": 0, "lesion": 1, "ignore": 2}}))
    values = {key: scores.value("a", "lesion", key) for key in ("dice", "hd95", "lesions_false", "fp", "tn")}
    assert values == {"dice": 1, "hd95": 0, "lesions_false": 0, "fp": 0, "tn": 12 * 10 * 8 - 6 * 5 * 4 - 4}


def test_the_ignore_label_in_a_prediction_is_named(tmp_path: Path) -> None:
    labels = labels_of(0).astype(np.uint8)
    labels[0, 0, 0] = 3
    folders = one_case(tmp_path, labels, labels)
    dataset = DatasetJson({"labels": {"background": 0, "lesion": 1, "core": 2, "ignore": 3}})
    with pytest.raises(UserError, match=r"values 3 \(1 voxel\); expected \[0, 1, 2\], since 3 is the ignore label"):
        evaluate_folder(*folders, dataset)


def test_missing_and_extra_cases(tmp_path: Path) -> None:
    predictions, references = write_folders(tmp_path)
    (predictions / "case_1.nii.gz").unlink()
    write(predictions / "case_9.nii.gz", labels_of(9))
    (predictions / "dataset.json").write_text("{}")
    with pytest.raises(UserError) as error:
        evaluate_folder(predictions, references)
    assert "2 cases in one folder only" in str(error.value)
    assert "case_1.nii.gz: no prediction" in str(error.value) and "case_9.nii.gz: no reference" in str(error.value)
    write(predictions / "case_0.nii.gz", labels_of(0)[1:])
    (references / "case_2.nii.gz").write_bytes(b"cut off")
    with pytest.raises(UserError) as error:
        evaluate_folder(predictions, references)
    for name in ("case_0", "case_1", "case_2", "case_9"):
        assert f"{name}.nii.gz: " in str(error.value), "missing and damaged files are listed together"


def test_cases_in_both_folders_are_scored_if_asked_for(tmp_path: Path) -> None:
    predictions, references = write_folders(tmp_path)
    (predictions / "case_1.nii.gz").unlink()
    write(predictions / "case_9.nii.gz", labels_of(9))
    scores = evaluate_folder(predictions, references, only_common=True)
    assert scores.cases == ("case_0", "case_2")
    assert scores.settings["cases_in_one_folder_only"] == ["case_1", "case_9"]


def test_all_problems_with_files_are_listed_at_once(tmp_path: Path) -> None:
    predictions, references = write_folders(tmp_path, 6)
    write(predictions / "case_0.nii.gz", labels_of(0)[1:])
    moved = AFFINE.copy()
    moved[2, 3] += 3
    write(predictions / "case_1.nii.gz", labels_of(1), moved)
    edited(predictions / "case_2.nii.gz", {(0, 0, 0): 7, (0, 0, 1): 7})
    (predictions / "case_3.nii.gz").write_bytes((predictions / "case_4.nii.gz").read_bytes()[:-40])
    write(references / "case_4.nii.gz", np.full((12, 10, 8), np.nan, np.float32))
    write(references / "case_5.nii.gz", (labels_of(5) * 0.5).astype(np.float32))
    with pytest.raises(UserError) as error:
        evaluate_folder(predictions, references, DATASET)
    text = str(error.value)
    assert text.startswith("6 problems with label files, nothing was scored")
    for words in (
        "case_0.nii.gz: shape (11, 10, 8) differs from (12, 10, 8)",
        "case_1.nii.gz: origin",
        "case_2.nii.gz: unexpected label values 7 (2 voxels); expected [0, 1, 2]",
        "case_3.nii.gz: is a truncated or damaged gzip file",
        "case_4.nii.gz: contains NaN",
        "case_5.nii.gz: ",
    ):
        assert words in text


def test_an_interrupted_evaluation_resumes_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, references = write_folders(tmp_path)
    complete = evaluate_folder(predictions, references, DATASET)
    score_arrays, computed = scoring.score_arrays, []

    def interrupted(*arguments: object) -> object:
        if len(computed) == 2:
            raise KeyboardInterrupt
        return recorded(*arguments)

    def recorded(*arguments: object) -> object:
        computed.append(arguments)
        return score_arrays(*arguments)

    def resume(**changes: object) -> tuple[Scores, int]:
        computed.clear()
        found = evaluate_folder(predictions, references, DATASET, unfinished=tmp_path / "saved", **changes)
        return found, len(computed)

    monkeypatch.setattr(scoring, "score_arrays", interrupted)
    with pytest.raises(KeyboardInterrupt):
        resume()
    monkeypatch.setattr(scoring, "score_arrays", recorded)
    found, again = resume()
    assert again == 1
    assert repr(found.table) == repr(complete.table) and found.lesions == complete.lesions
    write(predictions / "case_0.nii.gz", labels_of(7))
    (tmp_path / "saved" / "case_1.json").write_text("{")
    assert resume()[1] == 2
    saved = tmp_path / "saved" / "case_1.json"
    content = json.loads(saved.read_text())
    for damaged in ({**content, "scores": []}, [content], "[" * 100_000):
        saved.write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
        assert resume()[1] == 1
    assert resume(tolerances_mm=(3.0,))[1] == 3


def test_pairs_from_anywhere_score_like_folders_and_arrays(tmp_path: Path) -> None:
    predictions, references = write_folders(tmp_path, 2)
    expected = evaluate_folder(predictions, references, DATASET)
    pairs = []
    for number, case in enumerate(expected.cases):
        files = [folder / f"{case}.nii.gz" for folder in (predictions, references)]
        moved = [files[0].rename(tmp_path / f"p{number}.nii.gz"), files[1].rename(tmp_path / f"r{number}.nii.gz")]
        pairs.append(CasePair(case, *moved))
    found = evaluate_pairs(pairs, DATASET)
    assert repr(found.table) == repr(expected.table) and found.settings == expected.settings
    assert found.files["case_1"].prediction == str(tmp_path / "p1.nii.gz")
    regions = regions_of(DATASET).labels
    for pair in pairs:
        prediction, reference = read_labels(pair.prediction), read_labels(pair.reference)
        arrays = scoring.score_arrays(prediction.labels, reference.labels, reference.grid.spacing, regions)
        for region, scores in arrays.items():
            assert all(value == found.value(pair.case, region, key) for key, value in scores.values.items())
        assert dice_of_regions(prediction.labels, reference.labels, regions, None) == {
            region: found.value(pair.case, region, "dice") for region in regions
        }


def test_arrays_need_the_same_shape() -> None:
    array = np.zeros((3, 3, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\(3, 3, 2\) and reference of \(3, 3, 3\) differ"):
        scoring.score_arrays(array[..., :2], array, (1.0, 1.0, 1.0), {"r": (1,)})


def test_pairs_need_cases_with_different_names(tmp_path: Path) -> None:
    pair = CasePair("a", tmp_path / "p.nii.gz", tmp_path / "r.nii.gz")
    with pytest.raises(UserError, match="no cases to score"):
        evaluate_pairs([])
    with pytest.raises(UserError, match="names must differ"):
        evaluate_pairs([pair, pair])


def test_folders_without_common_cases(tmp_path: Path) -> None:
    predictions, references = write_folders(tmp_path, 1)
    (predictions / "case_0.nii.gz").rename(predictions / "other.nii.gz")
    with pytest.raises(UserError, match=r"have no case in common; .* \(predictions: other; references: case_0\)"):
        evaluate_folder(predictions, references, only_common=True)
    (predictions / "other.nii.gz").unlink()
    with pytest.raises(UserError, match="contains no label file"):
        evaluate_folder(predictions, references)
    with pytest.raises(UserError, match="is not a folder"):
        evaluate_folder(tmp_path / "nowhere", references)


def test_one_folder_as_both(tmp_path: Path) -> None:
    """References given twice by mistake would get perfect scores."""
    _, references = write_folders(tmp_path, 1)
    link = tmp_path / "link"
    link.symlink_to(references)
    with pytest.raises(UserError, match="predictions and references are the same folder"):
        evaluate_folder(link, references)


def test_two_files_of_one_case(tmp_path: Path) -> None:
    predictions, references = write_folders(tmp_path, 1)
    nibabel.save(nibabel.load(predictions / "case_0.nii.gz"), predictions / "case_0.nii")
    with pytest.raises(UserError, match=r"two files of case_0, case_0.nii and case_0.nii.gz"):
        evaluate_folder(predictions, references)


def test_summaries_say_over_how_many_cases(tmp_path: Path) -> None:
    predictions, references = write_folders(tmp_path)
    write(references / "case_0.nii.gz", np.zeros((12, 10, 8), np.uint8))
    scores = evaluate_folder(predictions, references, DATASET)
    assert scores.summary("whole", "hd95").count == "2 of 3"
    assert scores.summary("whole", "dice").count == "3 of 3"
    assert scores.value("case_0", "whole", "dice") == 0.0
    penalised = evaluate_folder(
        predictions, references, DATASET, scheme=scheme_named("none", empty=["hd95:reference=diagonal"])
    )
    diagonal = math.sqrt((12 * 0.5) ** 2 + (10 * 0.8) ** 2 + (8 * 3) ** 2)
    assert penalised.value("case_0", "whole", "hd95") == pytest.approx(diagonal)
    assert penalised.summary("whole", "hd95").count == "3 of 3"


@pytest.mark.parametrize(
    "change",
    ["dice", "dice:both", "dice:none=1", "volume:both=1", "dice:both=x", "dice:both=nan", "lesion_f1:reference=1"],
)
def test_wrong_changes_of_the_policy(change: str) -> None:
    with pytest.raises(UserError, match="dice:both=|expected a number"):
        changed(DEFAULT_POLICY, [change])


def test_a_scheme_is_not_changed(tmp_path: Path) -> None:
    for change in ({"empty": ["dice:both=0"]}, {"lesion_rule": LesionRule(connectivity=6)}):
        with pytest.raises(UserError, match="isles2022 defines lesions and the values for empty masks"):
            scheme_named("isles2022", **change)
    predictions, references = write_folders(tmp_path, 1)
    with pytest.raises(UserError, match="tolerances"):
        evaluate_folder(predictions, references, tolerances_mm=(1.0, 1.0))


def test_regions_of_a_scheme_take_the_names_of_dataset_json() -> None:
    labels = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing": [3]}
    regions = regions_of(DatasetJson({"labels": labels}), SCHEMES["brats2024-gli"])
    assert dict(regions.labels) == {
        "whole tumor": (1, 2, 3), "tumor core": (1, 3), "enhancing": (3,), "NETC": (1,), "SNFH": (2,), "RC": (4,)
    }  # fmt: skip
    assert regions.keys["whole tumor"] == "(1, 2, 3)" and regions.keys["enhancing"] == "(3,)"
    labels["tumor core"] = [2, 3]
    assert dict(regions_of(DatasetJson({"labels": labels}), SCHEMES["brats2023-gli"]).labels) == {
        "whole tumor": (1, 2, 3), "tumor core": (2, 3), "enhancing": (3,)
    }  # fmt: skip
    labels["tumor core"] = [1, 2]
    with pytest.raises(UserError, match=r"do not say what the value 3 is .*tumor core = 1\+2"):
        regions_of(DatasetJson({"labels": labels}), SCHEMES["brats2023-gli"])


@pytest.mark.parametrize("labels", [None, [1], {"a": "1"}, {"a": []}])
def test_damaged_labels_of_dataset_json(labels: object) -> None:
    with pytest.raises(UserError, match="labels must map names to"):
        regions_of(DatasetJson({"labels": labels}))


def test_dataset_json_is_found_where_nnunet_puts_it(tmp_path: Path) -> None:
    fold, references = tmp_path / "model" / "fold_0" / "validation", tmp_path / "raw" / "labelsTr"
    fold.mkdir(parents=True)
    references.mkdir(parents=True)
    assert find_dataset_json(fold, references) is None
    labels = {"background": 0, "tumor": 1}
    for place, found in ((tmp_path / "raw", 0), (tmp_path / "model", 1), (fold, 2)):
        (place / "dataset.json").write_text(json.dumps({"labels": labels, "n": found}))
        expected = DatasetJson({"labels": labels, "n": found}, place / "dataset.json")
        assert find_dataset_json(fold, references) == expected
