"""Everything wrong with dataset.json and with names of files is reported before anything is written."""

from __future__ import annotations

import os
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
from factorizer_nnunet.dataset_check.raw import check_raw_dataset
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


def rename_case(old: str, new: str) -> Callable[[Path], None]:
    def change(raw: Path) -> None:
        for path in [*raw.glob(f"*/{old}_*"), *raw.glob(f"*/{old}.*")]:
            path.rename(path.with_name(path.name.replace(old, new, 1)))

    return change


def name_twice(raw: Path) -> None:
    file = raw / "dataset.json"
    file.write_text(file.read_text().replace('"box": 1', '"box": 1, "box": 2'))


def dangling(raw: Path) -> None:
    path = raw / "imagesTr/case_0_0001.nii.gz"
    path.unlink()
    path.symlink_to("/nowhere/image.nii.gz")


def named_pipe(raw: Path) -> None:
    path = raw / "labelsTr/case_0.nii.gz"
    path.unlink()
    os.mkfifo(path)


def folder_for_file(raw: Path) -> None:
    path = raw / "labelsTr/case_0.nii.gz"
    path.unlink()
    path.mkdir()


def undecodable(raw: Path) -> None:
    path = raw / "imagesTr/case_0_0000.nii.gz"
    os.rename(os.fsencode(path), os.fsencode(raw) + b"/imagesTr/caf\xe9_0000.nii.gz")


BAD_DATASETS = {
    "no dataset.json": (remove("dataset.json"), r"Dataset007_Tiny has no dataset\.json"),
    "not JSON": (lambda raw: (raw / "dataset.json").write_text("{"), r"dataset\.json is not valid JSON"),
    "no object": (lambda raw: write_json(raw / "dataset.json", [1]), r"contains a list instead of an object"),
    "no channels": (without("channel_names"), r"lacks channel_names"),
    "keys missing": (without("labels", "file_ending"), r"lacks labels, file_ending"),
    "channels as list": (with_values(channel_names=["T1"]), r"channel_names must map"),
    "ending without dot": (with_values(file_ending="nii.gz"), r'file_ending must be a text such as "\.nii\.gz"'),
    "labels the other way": (with_values(labels={"0": "background", "1": "box"}), r"maps values to names"),
    "Background": (with_values(labels={"Background": 0, "box": 1}), r"label 'Background' in lower case"),
    "labels with a gap": (
        with_values(labels={"background": 0, "box": 1, "ball": 3}),
        r"labels must be consecutive from 0 \(background\), not \[0, 1, 3\]",
    ),
    "labels as list": (with_values(labels=["background"]), r"labels must map"),
    "regions without order": (
        with_values(labels={"background": 0, "a": [1, 2], "b": [2]}),
        r"regions_class_order must",
    ),
    "regions written as others": (
        with_values(labels={"background": 0, "a": [1, 2], "b": [2]}, regions_class_order=[2, 1]),
        r"2, 1\], predictions would have the value 2 where 1 is meant \(a\), the value 1 where 2 is meant \(a and b\)",
    ),
    "an inner region first": (
        with_values(labels={"background": 0, "b": [2], "a": [1, 2]}, regions_class_order=[2, 1]),
        r"would have the value 1 where 2 is meant \(b and a\)\. Give .* contain others come first",
    ),
    "regions with undeclared values": (
        with_values(labels={"background": 0, "a": [1, 2], "b": [2]}, regions_class_order=[1, 9]),
        r"the value 9 where 2 is meant \(a and b\)",
    ),
    "a name twice": (name_twice, r"dataset.json is not valid JSON: an object has 'box' more than once"),
    "no images": (remove("imagesTr/*"), r"no training images in .*imagesTr"),
    "wrong ending": (with_values(file_ending=".mha"), r"no training images in .*correct file_ending"),
    "wrong number": (with_values(numTraining=5), r"numTraining 5, but there are 3 training cases .*case_0"),
    "a channel missing": (remove("imagesTr/case_1_0001*"), r"case case_1 in .* channels \[0\].* names 2"),
    "a label missing": (remove("labelsTr/case_2*"), r"case case_2 has no label file .*case_2\.nii\.gz"),
    "no channel number": (
        lambda raw: (raw / "imagesTr/case_0_0000.nii.gz").rename(raw / "imagesTr/case_0.nii.gz"),
        r"case_0\.nii\.gz is not named as nnU-Net expects: CASE_0000\.nii\.gz with the channel as four digits",
    ),
    "a damaged image": (
        lambda raw: (raw / "imagesTr/case_0_0000.nii.gz").write_bytes(b"no image"),
        r"imagesTr/case_0_0000\.nii\.gz: is no.* NIfTI file",
    ),
    "unknown format": (change_ending(".xyz"), r"no reader for files that end with '\.xyz'.*\.nii\.gz$"),
    "listed file missing": (
        with_values(dataset={"a": {"images": ["imagesTr/no.nii.gz"], "label": "labelsTr/case_0.nii.gz"}}),
        r"imagesTr/no\.nii\.gz: does not exist",
    ),
    "list empty": (with_values(dataset={}), r'"dataset" must map each case'),
    "list malformed": (with_values(dataset={"a": "b"}), r'"dataset", case .a. must be'),
    "channels in another order": (
        with_values(channel_names={"1": "T2", "0": "CT"}),
        r'channel_names has the numbers 1, 0\. Number the channels "0" to "1"',
    ),
    "channels counted from 1": (with_values(channel_names={"1": "T1", "2": "T2"}), r"has the numbers 1, 2"),
    "a channel without a name": (with_values(channel_names={"0": "T1", "1": None}), r'channel "1" must be a text'),
    "a space in a channel's name": (with_values(channel_names={"0": "T1", "1": "CT\u00a0"}), r'channel "1", .* space'),
    "a label that is true": (with_values(labels={"background": 0, "box": True}), r"label 'box' must be an integer"),
    "an unknown reader": (with_values(overwrite_image_reader_writer="os.system"), r"is not a reader of nnU-Net"),
    "number as text": (with_values(numTraining="3"), r"numTraining must be the number"),
    "a case called like a label": (rename_case("case_1", "case_0_seg"), r"case case_0_seg: nnU-Net keeps labels"),
    "a name that is too long": (rename_case("case_1", "c" * 235), r"the name is too long"),
    "files of macOS": (
        lambda raw: (raw / "imagesTr/._case_0_0000.nii.gz").write_bytes(b"\0\5\x16\7"),
        r"1 file that macOS wrote .*find .*imagesTr -name '\._\*' -delete",
    ),
    "an ending in capitals": (
        lambda raw: (raw / "labelsTr/case_0.nii.gz").rename(raw / "labelsTr/case_0.NII.GZ"),
        r"upper and lower case \(case_0\.NII\.GZ\)",
    ),
    "a dangling link": (dangling, r"case_0_0001\.nii\.gz: is a link to /nowhere/image\.nii\.gz, which does not exist"),
    "a named pipe": (named_pipe, r"case_0\.nii\.gz: is not a regular file"),
    "a folder for a file": (folder_for_file, r"case_0\.nii\.gz: is a folder"),
    "a name that is not UTF-8": (undecodable, r"is not valid UTF-8"),
    "too many images listed": (
        with_values(dataset={"a": {"images": ["imagesTr/case_0_0000.nii.gz"] * 3, "label": "labelsTr/case_0.nii.gz"}}),
        r"case 'a' lists 3 images, but channel_names has 2 channels",
    ),
    "a case that leads outside": (
        with_values(dataset={"../a": {"images": ["imagesTr/case_0_0000.nii.gz"], "label": "labelsTr/case_0.nii.gz"}}),
        r"the case name '\.\./a' contains a separator",
    ),
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
