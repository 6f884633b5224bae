"""Bad raw data sets are refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from planning_example import (
    NAME,
    NUM_CASES,
    dataset_json,
    write_json,
)

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.raw_dataset import check_raw_dataset, find_dataset
from factorizer_nnunet.planning.dataset import plan_dataset


def without(*keys: str) -> Callable[[Path], None]:
    def change(raw: Path) -> None:
        write_json(raw / "dataset.json", {k: v for k, v in dataset_json().items() if k not in keys})

    return change


def with_values(**values: object) -> Callable[[Path], None]:
    return lambda raw: write_json(raw / "dataset.json", {**dataset_json(), **values})


def remove(pattern: str) -> Callable[[Path], None]:
    return lambda raw: [path.unlink() for path in raw.glob(pattern)]


def change_ending(ending: str) -> Callable[[Path], None]:
    def change(raw: Path) -> None:
        for path in raw.glob("*/*.nii.gz"):
            path.rename(path.with_name(path.name.replace(".nii.gz", ending)))
        with_values(file_ending=ending)(raw)

    return change


BAD_DATASETS = {
    "no dataset.json": (remove("dataset.json"), r"Dataset007_Tiny has no dataset\.json"),
    "not JSON": (lambda raw: (raw / "dataset.json").write_text("{"), r"dataset\.json is not valid JSON"),
    "no object": (lambda raw: write_json(raw / "dataset.json", [1]), r"contains list instead of a JSON object"),
    "no channels": (without("channel_names"), r"lacks channel_names"),
    "keys missing": (without("labels", "file_ending"), r"lacks labels, file_ending"),
    "channels as list": (with_values(channel_names=["T1"]), r"channel_names must map"),
    "ending without dot": (with_values(file_ending="nii.gz"), r'file_ending must be a text such as "\.nii\.gz"'),
    "labels the other way": (with_values(labels={"0": "background", "1": "box"}), r"cannot use labels"),
    "labels with a gap": (
        with_values(labels={"background": 0, "box": 1, "ball": 3}),
        r"labels must be consecutive from 0 \(background\), not \[0, 1, 3\]",
    ),
    "labels as list": (with_values(labels=["background"]), r"labels must map"),
    "regions without order": (with_values(labels={"background": 0, "a": [1, 2], "b": [2]}), r"cannot use labels"),
    "no images": (remove("imagesTr/*"), r"no training images in .*imagesTr"),
    "wrong ending": (with_values(file_ending=".mha"), r"no training images in .*correct file_ending"),
    "wrong number": (with_values(numTraining=5), r"numTraining 5, but there are 3 training cases .*case_0"),
    "a channel missing": (remove("imagesTr/case_1_0001*"), r"case case_1 in .* channels \[0\].* names 2"),
    "a label missing": (remove("labelsTr/case_2*"), r"1 training cases have no label.*case_2\.nii\.gz"),
    "no channel number": (
        lambda raw: (raw / "imagesTr/case_0_0000.nii.gz").rename(raw / "imagesTr/case_0.nii.gz"),
        r"case_0\.nii\.gz is not named as nnU-Net expects: CASE_0000\.nii\.gz with the channel as four digits",
    ),
    "a damaged image": (
        lambda raw: (raw / "imagesTr/case_0_0000.nii.gz").write_bytes(b"no image"),
        r"no reader for .*imagesTr/case_0_0000\.nii\.gz",
    ),
    "unknown format": (change_ending(".xyz"), r"no reader for .*case_0_0000\.xyz: .*\.nii\.gz$"),
    "listed file missing": (
        with_values(dataset={"a": {"images": ["imagesTr/no.nii.gz"], "label": "labelsTr/case_0.nii.gz"}}),
        r"1 files listed in .*imagesTr/no\.nii\.gz",
    ),
    "list empty": (with_values(dataset={}), r"no training images: .* is empty"),
    "list malformed": (with_values(dataset={"a": "b"}), r'"dataset" must map each case'),
}


@pytest.mark.parametrize("name", BAD_DATASETS)
def test_a_bad_dataset_is_reported_and_nothing_is_written(raw: Path, folders: Path, name: str) -> None:
    change, message = BAD_DATASETS[name]
    change(raw)
    with pytest.raises(UserError, match=message):
        plan_dataset(7)
    assert list((folders / "nnUNet_preprocessed").rglob("*")) == []


def test_the_good_dataset_passes_the_same_check(raw: Path) -> None:
    found = check_raw_dataset(7)
    assert (found.id, found.name, found.folder, found.num_channels, found.num_cases) == (7, NAME, raw, 2, NUM_CASES)


def test_cases_may_be_listed_in_dataset_json(raw: Path) -> None:
    case = {"images": ["imagesTr/case_0_0000.nii.gz", "imagesTr/case_0_0001.nii.gz"], "label": "labelsTr/case_0.nii.gz"}
    with_values(dataset={"first": case}, numTraining=1)(raw)
    assert check_raw_dataset(7).num_cases == 1


@pytest.mark.parametrize("spelling", [7, "7", "007", NAME])
def test_a_dataset_is_found_by_id_and_by_name(raw: Path, spelling: str | int) -> None:
    assert find_dataset(spelling) == (7, NAME)


@pytest.mark.parametrize("spelling", ["8", "Dataset007_Other", "Dataset008_Tiny", "tiny", ""])
def test_an_unknown_dataset_lists_the_known_ones(raw: Path, spelling: str) -> None:
    with pytest.raises(UserError, match=f"Known there: {NAME}"):
        find_dataset(spelling)


def test_without_any_dataset_the_message_says_what_to_do(folders: Path) -> None:
    with pytest.raises(UserError, match=r"no data set 7 in nnUNet_raw .*convert one"):
        find_dataset(7)


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_two_names_of_one_id_are_reported(raw: Path, folders: Path, variable: str) -> None:
    (folders / variable / "Dataset007_Other").mkdir()
    for spelling in ("7", NAME):
        with pytest.raises(UserError, match=r"ID 7 belongs to several data sets.*Dataset007_Other, Dataset007_Tiny"):
            find_dataset(spelling)
