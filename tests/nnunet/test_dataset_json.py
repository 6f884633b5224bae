"""What dataset.json says, compared with nnU-Net's own reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.dataset_json import CaseFiles, DatasetJson

LABELS = {"background": 0, "edema": 1, "tumor": 2, "ignore": 3}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2], "scar": 3}


def described(**content: Any) -> DatasetJson:
    return DatasetJson({"channel_names": {"0": "T1"}, "labels": LABELS, "file_ending": ".nii", **content})


def test_labels() -> None:
    dataset = described()
    assert dataset.regions == {"edema": (1,), "tumor": (2,)}
    assert dataset.region_keys == {"edema": "1", "tumor": "2"}
    assert dataset.ignore_label == LabelManager(LABELS, None).ignore_label == 3
    assert dataset.label_values == {0, 1, 2, 3}


def test_regions_have_the_keys_of_nnunets_scores() -> None:
    dataset = described(labels=REGIONS, regions_class_order=[1, 2, 3])
    expected = LabelManager(REGIONS, [1, 2, 3]).foreground_regions
    assert list(dataset.region_keys.values()) == [str(region) for region in expected]
    assert dataset.ignore_label is None


@pytest.mark.parametrize("labels", [None, ["background"], {"0": "background"}, {"tumor": []}, {"tumor": [0.5]}])
def test_wrong_labels_are_refused(labels: object) -> None:
    with pytest.raises(UserError, match=r"dataset\.json: labels must map names to integers or lists of them"):
        _ = described(labels=labels).labels


def test_background_is_0_and_no_value_has_two_names() -> None:
    with pytest.raises(UserError, match="label 'background' must be 0, as in nnU-Net, not 1"):
        _ = described(labels={"background": 1, "edema": 0}).labels
    with pytest.raises(UserError, match="labels 'edema' and 'core' have the same value 1"):
        _ = described(labels={"background": 0, "edema": 1, "core": 1}).labels


def test_channels_are_in_the_order_of_their_numbers() -> None:
    named = {str(number): f"channel {number}" for number in (10, 9, *range(9))}
    assert described(channel_names=named).channel_names == tuple(f"channel {number}" for number in range(11))
    assert DatasetJson({"modality": {"0": "CT"}}).channel_names == ("CT",)
    with pytest.raises(UserError, match="channel_names must map numbers to names"):
        _ = described(channel_names=["T1"]).channel_names


def test_training_labels_are_those_that_nnunet_finds(tmp_path: Path) -> None:
    for name in ("imagesTr/b_0000.nii", "imagesTr/a_0000.nii", "imagesTr/note.txt", "labelsTr/a.nii", "labelsTr/b.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "dataset.json").write_text(json.dumps(described().content))
    found = get_filenames_of_train_images_and_targets(str(tmp_path))
    dataset = DatasetJson.read(tmp_path / "dataset.json")
    assert dataset.training_cases(tmp_path) == {
        case: CaseFiles(case, tuple(map(Path, files["images"])), Path(files["label"])) for case, files in found.items()
    }


def test_listed_training_cases() -> None:
    dataset = described(dataset={"a": {"images": ["../elsewhere/x.nii"], "label": "/other/x.nii"}})
    expected = CaseFiles("a", (Path("/elsewhere/x.nii"),), Path("/other/x.nii"))
    assert dataset.training_cases(Path("/raw")) == {"a": expected}


@pytest.mark.parametrize("listed", [[], "a", {"a": []}, {"a": {"images": 1, "label": "x"}}, {"a": {"images": [1]}}])
def test_cases_listed_in_another_form(listed: object) -> None:
    with pytest.raises(UserError, match='"dataset" must map cases to'):
        described(dataset=listed).training_cases(Path("raw"))
