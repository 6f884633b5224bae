"""Rules on masks that can be checked by eye, and the file that has them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.postprocessing.rule_file import check_not_edited, read_postprocessing, write_postprocessing
from factorizer_nnunet.postprocessing.rules import Postprocessing, RegionRule, cleaned_mask, voxel_mm3

LABELS = DatasetJson({"labels": {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}})
REGIONS = DatasetJson(
    {
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
        "regions_class_order": [1, 2, 3],
    }
)
SPACING = (1.0, 2.0, 1.0)


def _cleaned(labels: np.ndarray, dataset: DatasetJson, **rules: RegionRule) -> np.ndarray:
    return Postprocessing(rules, dataset).cleaned(labels, SPACING)


def test_small_components_go_and_the_largest_stays() -> None:
    mask = np.zeros((12, 6, 3), bool)
    mask[1:5, 1:3, 1] = True  # 8 voxels of 2 mm³
    mask[8, 4, 1] = mask[9, 5, 2] = True  # 2 voxels that touch at a corner
    assert cleaned_mask(mask, RegionRule(min_lesion_mm3=4), 2.0).sum() == 10
    assert cleaned_mask(mask, RegionRule(min_lesion_mm3=4.1), 2.0).sum() == 8
    assert cleaned_mask(mask, RegionRule(largest_only=True), 2.0).sum() == 8
    assert cleaned_mask(mask, RegionRule(), 2.0) is mask


@pytest.mark.parametrize("shape", [(7, 7, 7), (7, 7, 1), (7, 7)])
def test_holes_are_filled_in_two_and_three_dimensions(shape: tuple[int, ...]) -> None:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(1, 6) if n > 1 else slice(None) for n in shape)] = True
    hole = tuple(3 if n > 1 else 0 for n in shape)
    filled = mask.copy()
    mask[hole] = False
    np.testing.assert_array_equal(cleaned_mask(mask, RegionRule(fill_holes=True), 1.0), filled)


def test_a_tunnel_through_a_volume_is_not_a_hole() -> None:
    mask = np.ones((5, 5, 5), bool)
    mask[2, 2, :] = False
    assert not cleaned_mask(mask, RegionRule(fill_holes=True), 1.0)[2, 2].any()


def test_what_leaves_a_region_becomes_what_is_around_it() -> None:
    labels = np.zeros((9, 4, 1), np.uint8)
    labels[:6] = 1
    labels[1:5, 1:3] = 2
    labels[2, 1] = 3
    small = RegionRule(min_lesion_mm3=1000)
    without = _cleaned(labels, REGIONS, enhancing=small)
    assert without[2, 1, 0] == 2 and (without != labels).sum() == 1
    assert set(np.unique(_cleaned(labels, REGIONS, core=small))) == {0, 1}
    assert not _cleaned(labels, REGIONS, whole=small).any()
    assert labels[2, 1, 0] == 3  # the input stays


def test_a_label_takes_only_background() -> None:
    labels = np.zeros((7, 7, 1), np.uint8)
    labels[1:6, 1:6] = 1
    labels[2, 2], labels[4, 4] = 2, 0
    filled = _cleaned(labels, LABELS, organ=RegionRule(fill_holes=True))
    assert filled[2, 2, 0] == 2 and filled[4, 4, 0] == 1
    assert _cleaned(labels, LABELS, lesion=RegionRule(min_lesion_mm3=99))[2, 2, 0] == 0


def test_a_single_slice_has_no_thickness() -> None:
    assert voxel_mm3((1, 20, 20), (999.0, 0.5, 2.0)) == voxel_mm3((20, 20), (0.5, 2.0)) == 1.0


def test_offsets_stand_for_thresholds() -> None:
    rules = {"lesion": RegionRule(threshold=0.2)}
    offsets = Postprocessing(rules, LABELS).offsets()
    assert offsets[:2] == [0, 0]
    logits = np.log([0.79, 1e-9, 0.21])
    assert np.argmax(logits + offsets) == 2 and np.argmax(np.log([0.81, 1e-9, 0.19]) + offsets) == 0
    (offset,) = [one for one in Postprocessing({"core": RegionRule(threshold=0.7)}, REGIONS).offsets() if one]
    assert np.log(0.71 / 0.29) + offset > 0 > np.log(0.69 / 0.31) + offset


@pytest.fixture
def model(tmp_path: Path) -> ModelFolder:
    model = ModelFolder(tmp_path)
    rules = Postprocessing({"lesion": RegionRule(threshold=0.4, fill_holes=True)}, LABELS)
    write_postprocessing(model.postprocessing_file, rules, {"0": "aa", "1": "bb"}, {"tuned": {"cases": 12}})
    return model


def test_a_file_returns_its_rules_for_its_checkpoints(model: ModelFolder) -> None:
    found = read_postprocessing(model, LABELS, {"1": "bb"})
    assert found is not None
    assert found.rules == {"lesion": RegionRule(threshold=0.4, fill_holes=True)}
    assert str(found) == "lesion: threshold 0.4, holes filled"


@pytest.mark.parametrize(
    ("dataset", "checkpoints", "words"),
    [
        (LABELS, {"0": "other"}, "other checkpoints than that of fold 0"),
        (LABELS, {"all": "aa"}, "fold all"),
        (DatasetJson({"labels": {"background": 0, "lesion": 1, "organ": 2}}), {"0": "aa"}, "is for the labels"),
    ],
)
def test_rules_of_other_models_are_refused(
    model: ModelFolder, dataset: DatasetJson, checkpoints: dict[str, str], words: str
) -> None:
    with pytest.raises(UserError, match=f"{words}.*--no-postprocessing"):
        read_postprocessing(model, dataset, checkpoints)


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0},
        {"threshold": True},
        {"fill_holes": 1},
        {"min_lesion_mm3": "5"},
        {"min_lesion_mm3": -1},
        {"x": 1},
    ],
)
def test_an_edited_file_is_checked_and_never_overwritten(model: ModelFolder, change: dict[str, object]) -> None:
    file = model.postprocessing_file
    content = json.loads(file.read_text())
    content["regions"]["lesion"]["min_lesion_mm3"] = 30
    file.write_text(json.dumps(content))
    found = read_postprocessing(model, LABELS, {"0": "aa"})
    assert found is not None and found.rules["lesion"].min_lesion_mm3 == 30
    with pytest.raises(UserError, match="edited"):
        check_not_edited(file)
    content["regions"]["lesion"] |= change
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is damaged"):
        read_postprocessing(model, LABELS, {"0": "aa"})
