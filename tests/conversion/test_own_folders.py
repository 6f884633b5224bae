"""Folders of one's own images and masks, under the names that people give them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nifti_files import intensities, labels, write
from nnunet_folders import use_folders_below

from factorizer_nnunet import cli

SHAPE = (14, 12, 10)
CASES = ("p01", "p02", "p03", "p04", "p05", "p06")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parent of nnU-Net's folders."""
    use_folders_below(tmp_path, monkeypatch)
    return tmp_path


def draw(
    folder: Path, images: tuple[str, ...], mask: str, values: tuple[int, ...] = (1,), cases: tuple = CASES
) -> None:
    """Write files under names with ``{case}``, without their ending."""
    for case in cases:
        for name in images:
            write(folder / f"{name.format(case=case)}.nii.gz", intensities(f"{case}{name}", SHAPE))
        write(folder / f"{mask.format(case=case)}.nii.gz", labels(case, SHAPE, tuple(values)))


def convert(*arguments: object) -> int:
    return cli.main(["convert", "folders", *map(str, arguments), "-d", "7", "--name", "Own", "--jobs", "1"])


def data_set(root: Path) -> Path:
    return root / "nnUNet_raw" / "Dataset007_Own"


T2_ADC = ("images/{case}/{case}_T2w", "images/{case}/{case}_adc map")
NAMES = [  # images in the order of their channels, masks, and the option --channels
    (("images/{case}",), "masks/{case}", ["CT"]),
    (("images/{case}_0000", "images/{case}_0001"), "masks/{case}", ["T1", "FLAIR"]),
    (("images/{case}_flair", "images/{case}_t1"), "masks/{case}_seg", ["FLAIR", "T1"]),
    (("images/{case}/t1", "images/{case}/flair"), "masks/{case}/mask", ["T1", "FLAIR"]),
    (("images/volume-{case}",), "masks/segmentation-{case}", ["CT"]),
    (("images/{case}/imaging",), "images/{case}/segmentation", ["CT"]),
    (T2_ADC, "images/{case}/{case}_lesion-mask", ["T2=t2w", "ADC=adc map"]),
    (("images/T1_{case}", "images/PET_{case}"), "masks/{case}/tumour", ["T1", "PET"]),
]


@pytest.mark.parametrize(("images", "mask", "channels"), NAMES, ids=[" ".join(names[0]) for names in NAMES])
def test_usual_names_are_understood(root: Path, images: tuple[str, ...], mask: str, channels: list[str]) -> None:
    draw(root / "own", images, mask)
    masks = root / "own" / mask.split("/")[0]
    assert convert(root / "own" / "images", "--masks", masks, "--channels", *channels, "--labels", "lesion") == 0
    description = json.loads((data_set(root) / "dataset.json").read_text())
    names = [channel.partition("=")[0] for channel in channels]
    assert description["channel_names"] == {str(number): name for number, name in enumerate(names)}
    assert description["labels"] == {"background": 0, "lesion": 1}
    for case in CASES:
        for number, name in enumerate(images):
            source, target = root / "own" / f"{name.format(case=case)}.nii.gz", f"{case}_{number:04d}.nii.gz"
            assert (data_set(root) / "imagesTr" / target).read_bytes() == source.read_bytes()
    assert len(list((data_set(root) / "imagesTr").iterdir())) == len(CASES) * len(images)
    assert len(json.loads((data_set(root) / "splits_final.json").read_text())) == 5


def test_values_become_consecutive_and_test_images_have_no_mask(root: Path) -> None:
    draw(root / "own", ("images/{case}_ct",), "masks/{case}_gt", values=(2, 255))
    for case in ("new 1", "train_2"):
        write(root / "own" / "new" / f"{case}_ct.nii.gz", intensities(case, SHAPE))
    folders = (root / "own/images", "--masks", root / "own/masks", "--test-images", root / "own/new")
    assert convert(*folders, "--labels", "vessel=255", "liver=2") == 0
    written = nibabel.load(data_set(root) / "labelsTr" / "p03.nii.gz").get_fdata()
    source = nibabel.load(root / "own/masks/p03_gt.nii.gz").get_fdata()
    assert np.array_equal(written == 1, source == 255) and np.array_equal(written == 2, source == 2)
    assert json.loads((data_set(root) / "dataset.json").read_text())["channel_names"] == {"0": "ct"}
    assert sorted(path.name for path in (data_set(root) / "imagesTs").iterdir()) == [
        "new 1_0000.nii.gz",
        "train_2_0000.nii.gz",
    ]


def test_what_is_not_named_is_asked_for_with_what_was_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(root / "own", ("images/{case}",), "masks/{case}", values=(1, 4))
    folders = (root / "own/images", "--masks", root / "own/masks")
    assert convert(*folders, "--labels", "a", "b") == 2
    assert "--channels, CT if it is computed tomography" in capsys.readouterr().err
    assert convert(*folders) == 2
    message = capsys.readouterr().err
    assert "--channels, CT" in message and "--labels NAME=1 NAME=4" in message
    assert convert(*folders, "--channels", "T2") == 2
    message = capsys.readouterr().err
    assert "1 (in 6 masks), 4 (in 6 masks)" in message and "--labels NAME=1 NAME=4" in message
    assert convert(*folders, "--channels", "T2", "--labels", "a", "b") == 2
    message = capsys.readouterr().err
    assert "p01" in message and "4" in message and "--labels NAME=VALUE" in message
    assert not data_set(root).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--channels", "T1", "--labels", "a"), "say which of them it is"),
        (("--channels", "T1=t1w", "FLAIR=dwi", "--labels", "a"), "FLAIR=dwi fits no images"),
        (("--labels", "background"), "0 is always the background"),
        (("--labels", "a=1", "b=1"), "each value may be given once"),
        (("--labels", "a=x"), "expected NAME or NAME=VALUE"),
        (("--labels", "ignore", "a"), "ignore as the last label"),
    ],
)
def test_wrong_names_are_refused(
    root: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    draw(root / "own", ("images/{case}_t1w", "images/{case}_flair"), "masks/{case}")
    assert convert(root / "own/images", "--masks", root / "own/masks", *options) == 2
    assert message in capsys.readouterr().err and not data_set(root).exists()


def test_incomplete_cases_are_listed_together(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(root / "own", ("images/{case}_t1", "images/{case}_dwi"), "masks/{case}")
    (root / "own/images/p02_dwi.nii.gz").unlink()
    (root / "own/masks/p04.nii.gz").unlink()
    shutil.move(root / "own/masks/p05.nii.gz", root / "own/masks/other.nii.gz")
    command = (root / "own/images", "--masks", root / "own/masks", "--labels", "lesion")
    assert convert(*command) == 2
    message = capsys.readouterr().err
    assert "p02" in message and "modality dwi is missing" in message
    assert "p04" in message and "p05" in message and "label is missing" in message
    assert "other" in message and "label without any image" in message
    assert convert(*command, "--skip-invalid") == 0
    assert len(list((data_set(root) / "labelsTr").iterdir())) == 3


@pytest.mark.parametrize(
    ("names", "warned"),
    [
        (["patient001_frame01", "patient001_frame09", "patient002_frame01"], True),
        (["sub-1.a", "sub-1.b", "sub-2.a", "sub-2.b"], True),
        (["heart_1", "heart_2", "heart_3"], False),
        (["scan2020_1", "scan2020_2"], False),
        (["p01", "p02"], False),
    ],
)
def test_several_cases_of_a_patient_are_a_warning(
    root: Path, capsys: pytest.CaptureFixture[str], names: list[str], warned: bool
) -> None:
    draw(root / "own", ("images/{case}",), "masks/{case}_msk", cases=names)
    command = (root / "own/images", "--masks", root / "own/masks", "--channels", "MR", "--labels", "ventricle")
    assert convert(*command) == 0
    assert ("look like cases of the same patients" in capsys.readouterr().out) == warned


def test_other_folders_are_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(root / "own", ("images/{case}",), "masks/{case}")
    draw(root / "other", ("images/{case}",), "masks/{case}", cases=("a", "b"))
    command = ("--channels", "T1", "--labels", "lesion")
    assert convert(root / "own/images", "--masks", root / "other/masks", *command) == 2
    assert "no image has the name of a mask: images are called p01.nii.gz" in capsys.readouterr().err
    (root / "empty").mkdir()
    assert convert(root / "own/images", "--masks", root / "empty", *command) == 2
    assert "has no masks" in capsys.readouterr().err
    assert convert(root / "own/images", *command) == 2
    assert "--masks" in capsys.readouterr().err
    assert cli.main(["convert", "brats2021", str(root), "--masks", str(root), "-d", "7"]) == 2
    assert "are for folders, not for brats2021" in capsys.readouterr().err
