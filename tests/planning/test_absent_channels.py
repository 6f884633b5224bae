"""Channels that dataset.json declares absent: checked, planned with, and left out of what nnU-Net measures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from in_process import use_threads
from planning_example import NAME, NUM_CASES, SHAPE, dataset_json, write_image, write_json

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.dataset_check.raw import check_raw_dataset, check_voxels
from factorizer_nnunet.planning.dataset import plan_dataset

FINGERPRINT = "dataset_fingerprint.json"


def declare(raw: Path, absent: object, **values: object) -> None:
    write_json(raw / "dataset.json", {**dataset_json(), **values, "absent_channels": absent})


def empty(raw: Path, case: int, channel: int) -> None:
    write_image(raw / "imagesTr" / f"case_{case}_{channel:04d}.nii.gz", np.zeros(SHAPE, np.float32))


def plan(preprocess: bool = False) -> Path:
    return plan_dataset(7, ["3d_fullres"], num_processes=1, preprocess=preprocess)


def test_declared_channels_are_neither_constant_nor_duplicates(raw: Path, tmp_path: Path) -> None:
    for case in (0, 2):
        empty(raw, case, 1)
    with pytest.raises(UserError, match="case_0_0001.nii.gz: is constant: every voxel is 0"):
        plan()
    declare(raw, {"case_0": [1], "case_2": [1]})
    checked = check_voxels(check_raw_dataset(7), tmp_path / "record", num_processes=1)
    assert checked.warnings == ()


def test_a_declared_channel_with_an_image_is_reported(raw: Path) -> None:
    declare(raw, {"case_1": [0]})
    with pytest.raises(UserError, match=r"case_1_0000.nii.gz: is not 0 everywhere, but .*dataset.json declares"):
        plan()
    write_image(raw / "imagesTr" / "case_1_0000.nii.gz", np.full(SHAPE, 4, np.float32))
    with pytest.raises(UserError, match="case_1_0000.nii.gz: is not 0 everywhere"):
        plan()


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        (["case_0"], "must map cases to numbers of channels"),
        ({"case_0": 1}, "must map cases to numbers of channels"),
        ({"case_0": ["T2"]}, "must map cases to numbers of channels"),
        ({"case_0": [True]}, "must map cases to numbers of channels"),
        ({"case_0": [2]}, "absent_channels of case_0 are [2], which must be some of the channels 0 to 1, but not all"),
        ({"case_0": [0, 1]}, "absent_channels of case_0 are [0, 1], which must be some"),
        ({"case_9": [1]}, "names cases that do not exist: case_9"),
        ({f"case_{case}": [1] for case in range(3)}, "lists channel 1 (T2) for every case"),
    ],
)
def test_wrong_declarations_are_reported(raw: Path, absent: object, message: str) -> None:
    declare(raw, absent)
    with pytest.raises(UserError, match=re.escape(message)):
        plan()
    assert not (raw.parents[1] / "nnUNet_preprocessed" / NAME).exists()


@pytest.mark.slow
def test_intensities_for_ct_come_from_the_cases_that_have_the_channel(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_threads(monkeypatch)
    empty(raw, 1, 1)
    declare(raw, {"case_1": [1]}, channel_names={"0": "CT", "1": "CT"})
    folder = plan().parent
    fingerprint = json.loads((folder / FINGERPRINT).read_text())
    for channel, cases in ((0, (0, 1, 2)), (1, (0, 2))):
        voxels = [foreground(raw, case, channel) for case in cases]
        measured = fingerprint["foreground_intensity_properties_per_channel"][str(channel)]
        assert measured["min"] == pytest.approx(min(part.min() for part in voxels))
        assert measured["mean"] == pytest.approx(np.mean([part.mean() for part in voxels]), rel=1e-2)
    assert len(fingerprint["spacings"]) == len(fingerprint["shapes_after_crop"]) == NUM_CASES
    assert json.loads((folder / "dataset.json").read_text())["absent_channels"] == {"case_1": [1]}
    plan()
    assert json.loads((folder / FINGERPRINT).read_text()) == fingerprint


def foreground(raw: Path, case: int, channel: int) -> np.ndarray:
    image, label = (
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(raw / part)))
        for part in (f"imagesTr/case_{case}_{channel:04d}.nii.gz", f"labelsTr/case_{case}.nii.gz")
    )
    return image[label > 0]
