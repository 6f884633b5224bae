"""What a check of images and labels finds in files of every format that nnU-Net reads."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from skimage import io

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.dataset_check import check
from factorizer_nnunet.dataset_check.check import SKIP_OPTION, CaseFiles, CheckedDataset, check_dataset
from factorizer_nnunet.dataset_check.dataset_rules import dataset_warnings
from factorizer_nnunet.dataset_check.facts import FileFacts
from factorizer_nnunet.dataset_check.rules import Expected

SHAPE = (10, 12, 14)  # z, y, x
SPACING = (0.8, 1.1, 2.5)  # x, y, z in mm


class Dataset:
    """Two cases of one image and one label each, in a format of choice, that a test damages."""

    def __init__(self, folder: Path, ending: str = ".nii.gz", reader: str = "SimpleITKIO", channels: int = 1) -> None:
        self.folder, self.ending, self.reader, self.channels = folder, ending, reader, channels
        self.labels = {0: "background", 1: "edema", 2: "core"}
        rng = np.random.default_rng(3)
        self.image = (rng.normal(size=SHAPE) * 50 + 300).astype(np.int16)
        self.label = np.zeros(SHAPE, np.uint8)
        self.label[2:6, 3:9, 4:9] = 1
        self.label[3:5, 4:7, 5:7] = 2
        for number, case in enumerate("ab"):  # the second case is mirrored
            self.write(self.path(case, 0), self.image[:: 1 - 2 * number])
            self.write(self.path(case), self.label[:: 1 - 2 * number])

    def path(self, case: str, channel: int | None = None) -> Path:
        return self.folder / f"{case}{'' if channel is None else f'_{channel:04d}'}{self.ending}"

    def write(self, path: Path, array: np.ndarray, spacing: tuple[float, ...] = SPACING) -> None:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing)
        sitk.WriteImage(image, os.fspath(path), True)

    def check(self, processes: int = 1) -> CheckedDataset:
        cases = [CaseFiles(case, (self.path(case, 0),), self.path(case)) for case in "ab"]
        names = tuple(f"channel {number}" for number in range(self.channels))
        ignore = next((value for value, name in self.labels.items() if name == "ignore"), None)
        expected = Expected(self.folder / "dataset.json", names, self.labels, ignore=ignore)
        return check_dataset(cases, expected, self.reader, self.folder / "preprocessed", processes)

    def problems(self) -> str:
        with pytest.raises(UserError) as caught:
            self.check()
        assert not (self.folder / "preprocessed").exists()
        return str(caught.value)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path)


def nifti(path: Path, stored: np.ndarray, **header: object) -> None:
    """A NIfTI file with fields of the header as given; stored: (x, y, z)."""
    image = nibabel.Nifti1Image(stored, np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0]))
    image.header.set_data_dtype(stored.dtype)
    content = bytearray(image.to_bytes())
    edited = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in header.items():
        edited[name] = value
    content[:348] = edited.binaryblock
    path.write_bytes(gzip.compress(bytes(content)) if path.name.endswith(".gz") else bytes(content))


FORMATS = [
    (".nii.gz", "SimpleITKIO"),
    (".nii", "NibabelIO"),
    (".nrrd", "SimpleITKIO"),
    (".mha", "SimpleITKIO"),
    (".gipl", "SimpleITKIO"),
]


@pytest.mark.parametrize(("ending", "reader"), FORMATS)
def test_good_data_pass_in_every_format(tmp_path: Path, ending: str, reader: str) -> None:
    checked = Dataset(tmp_path, ending, reader).check()
    assert checked.num_read == 4 and not checked.warnings


@pytest.mark.parametrize(("ending", "reader"), FORMATS)
@pytest.mark.parametrize("which", ["image", "label"])
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_truncated_files_are_found(tmp_path: Path, ending: str, reader: str, which: str, share: float) -> None:
    dataset = Dataset(tmp_path, ending, reader)
    path = dataset.path("b", 0 if which == "image" else None)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert str(path) in dataset.problems()


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_truncated_tiff(tmp_path: Path, compression: str | None) -> None:
    dataset = Dataset.__new__(Dataset)
    dataset.write = lambda path, array: tifffile.imwrite(path, array, compression=compression)  # type: ignore[method-assign]
    dataset.__init__(tmp_path, ".tiff", "Tiff3DIO")  # type: ignore[misc]
    dataset.check()
    path = dataset.path("a", 0)
    path.write_bytes(path.read_bytes()[:-700])
    os.utime(path)
    with pytest.raises(UserError, match=r"a_0000\.tiff"):
        dataset.check()


def test_colour_pngs_are_three_channels(tmp_path: Path) -> None:
    dataset = Dataset.__new__(Dataset)
    dataset.folder, dataset.ending, dataset.reader, dataset.channels = tmp_path, ".png", "NaturalImage2DIO", 3
    dataset.labels = {0: "background", 1: "road"}
    rng = np.random.default_rng(0)
    for case in "ab":
        io.imsave(dataset.path(case, 0), rng.integers(0, 255, (32, 40, 3), dtype=np.uint8), check_contrast=False)
        io.imsave(dataset.path(case), (rng.random((32, 40)) > 0.5).astype(np.uint8), check_contrast=False)
    dataset.check()
    dataset.channels = 1
    with pytest.raises(UserError, match="has 3 channels, but .* names 1"):
        dataset.check()
    dataset.channels = 3
    io.imsave(dataset.path("b", 0), rng.integers(0, 255, (32, 40, 4), dtype=np.uint8), check_contrast=False)
    with pytest.raises(UserError, match="transparency"):
        dataset.check()
    io.imsave(dataset.path("a"), rng.integers(0, 2, (32, 40, 3), dtype=np.uint8), check_contrast=False)
    with pytest.raises(UserError, match="where a label has one"):
        dataset.check()


def test_all_problems_of_all_cases_come_at_once_with_a_fix(dataset: Dataset) -> None:
    dataset.write(dataset.path("a", 0), np.full(SHAPE, 7, np.int16))
    dataset.write(dataset.path("a"), dataset.label + np.uint8(2))
    dataset.path("b", 0).write_bytes(b"<html>log in</html>" * 40)
    text = dataset.problems()
    for expected in (
        "a_0000.nii.gz: is constant: every voxel is 7. Replace",
        "a.nii.gz: has values that",
        "3 (",
        "b_0000.nii.gz: is",
        "log in",
        "3 problems",
        "nothing has been written",
    ):
        assert expected in text, text


def test_labels_saved_as_scaled_integers(dataset: Dataset) -> None:
    """As an 8-bit export of 0, 1, 2 does: 1 becomes 0.996 and would be cut off to 0."""
    stored = (dataset.label.transpose() * 127.5).astype(np.uint8)
    nifti(dataset.path("a"), stored, scl_slope=2 / 255, scl_inter=0)
    assert "values that are not integers, such as 0.996" in dataset.problems()


def test_labels_of_scaled_integers_without_loss_pass(dataset: Dataset) -> None:
    nifti(dataset.path("a"), (dataset.label.transpose() * 2).astype(np.int16), scl_slope=0.5, scl_inter=0)
    dataset.check()


def test_labels_in_double_precision_pass(dataset: Dataset) -> None:
    nifti(dataset.path("a"), dataset.label.transpose().astype(np.float64))
    dataset.check()


def test_a_declared_ignore_label_passes_and_negative_values_do_not(dataset: Dataset) -> None:
    label = dataset.label.astype(np.int16)
    label[0, 0, :3] = 3
    dataset.labels[3] = "ignore"
    dataset.write(dataset.path("a"), label)
    dataset.check()
    label[0, 0, :3] = -1
    dataset.write(dataset.path("a"), label)
    with pytest.raises(UserError, match=r"-1 \(3 voxels\); declared are 0, 1, 2, 3\. Correct the label$"):
        dataset.check()


def test_labels_that_wrapped_in_their_stored_type(dataset: Dataset) -> None:
    dataset.labels[300] = "cyst"
    assert "label 300 (cyst) cannot be stored in the files' type uint8" in dataset.problems()


def test_labels_beyond_what_nnunet_keeps(dataset: Dataset) -> None:
    dataset.labels[40_000] = "cyst"
    assert "wrap around in nnU-Net's preprocessed data" in dataset.problems()


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, np.float32), (-np.inf, np.float64), (1e300, np.float64)])
def test_voxels_that_are_not_finite(dataset: Dataset, value: float, dtype: type) -> None:
    stored = dataset.image.transpose().astype(dtype)
    stored[2, 3, 4:6] = value
    nifti(dataset.path("b", 0), stored)
    assert "2 voxels are NaN or infinite" in dataset.problems()


def test_values_whose_deviation_overflows(dataset: Dataset) -> None:
    stored = dataset.image.transpose().astype(np.float32)
    stored[0, 0, 0] = 3e30
    nifti(dataset.path("b", 0), stored)
    assert "are not finite in 32-bit floating point" in dataset.problems()


def test_values_too_small_for_the_normalisation(dataset: Dataset) -> None:
    """As a diffusion coefficient in m²/s; one bright voxel does not help."""
    stored = dataset.image.transpose().astype(np.float32) * 1e-12
    stored[0, 0, 0] = 1e-7
    nifti(dataset.path("b", 0), stored)
    assert "b_0000.nii.gz: has values with a standard deviation below 1e-8" in dataset.problems()
    nifti(dataset.path("b", 0), dataset.image.transpose().astype(np.float32) * 1e-5)
    dataset.check()


@pytest.mark.parametrize("key", ["srow_y", "qoffset_z"])
def test_a_position_that_is_not_finite(dataset: Dataset, key: str) -> None:
    file = dataset.path("b", 0)
    image = nibabel.Nifti1Image(dataset.image.transpose().astype(np.int16), np.eye(4))
    image.set_sform(np.eye(4), 1 if key == "srow_y" else 0)
    image.set_qform(np.eye(4), 1)
    image.header[key] = np.full_like(image.header[key], np.nan)
    content = bytearray(image.header.binaryblock) + bytes(4) + image.get_fdata().astype("<i2").tobytes(order="F")
    file.write_bytes(gzip.compress(bytes(content)))
    assert "has NaN or infinity in the position" in dataset.problems()


def test_undeclared_values_are_not_called_background(dataset: Dataset) -> None:
    for case in ("a", "b"):
        dataset.write(dataset.path(case), (dataset.label > 0).astype(np.uint8) * 255)
    assert "255 (" in dataset.problems() and "no label file has any foreground" not in dataset.problems()


def test_a_label_copied_as_an_image_is_a_warning(dataset: Dataset) -> None:
    shutil.copy(dataset.path("a"), dataset.path("b", 0))
    (warning,) = dataset.check().warnings
    assert warning == "images have the content of a label, such as b_0000.nii.gz and a.nii.gz. Copy the images again"


def test_large_but_harmless_values_pass(dataset: Dataset) -> None:
    nifti(dataset.path("b", 0), dataset.image.transpose().astype(np.float32) * 1e12)
    dataset.check()


@pytest.mark.parametrize("size", [0.0, -1.5, np.nan])
def test_voxel_sizes_that_are_none(dataset: Dataset, size: float) -> None:
    nifti(dataset.path("a", 0), dataset.image.transpose(), pixdim=[1, 1, 1, size, 0, 0, 0, 0])
    assert "a_0000.nii.gz: has an invalid voxel size in its header: 1 × 1 ×" in dataset.problems()


def test_axes_that_are_not_at_right_angles(dataset: Dataset) -> None:
    nifti(dataset.path("a", 0), dataset.image.transpose(), srow_x=[-0.8, 0.4, 0, 0], sform_code=1, qform_code=0)
    assert "axes are not at right angles" in dataset.problems()


def test_a_sheared_mha(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, ".mha")
    path = dataset.path("a", 0)
    sheared = path.read_bytes().replace(b"TransformMatrix = 1 0 0 0 1 0 0 0 1", b"TransformMatrix = 1 .5 0 0 1 0 0 0 1")
    path.write_bytes(sheared)
    assert "not at right angles" in dataset.problems()


def test_another_grid_names_both_files(dataset: Dataset) -> None:
    dataset.write(dataset.path("b"), dataset.label, (0.8, 1.1, 2.6))
    assert "b.nii.gz: spacing (0.8, 1.1, 2.6) differs from (0.8, 1.1, 2.5) of b_0000.nii.gz" in dataset.problems()


def test_no_foreground_anywhere(dataset: Dataset) -> None:
    for case in "ab":
        dataset.write(dataset.path(case), np.zeros(SHAPE, np.uint8))
    assert "no label file has any foreground" in dataset.problems()


def test_voxels_to_ignore_are_not_foreground(dataset: Dataset) -> None:
    dataset.labels[3] = "ignore"
    dataset.write(dataset.path("a"), np.full(SHAPE, 3, np.uint8))
    warnings = dataset.check().warnings
    assert any("1 label with no voxel that is not ignored: a" in text for text in warnings)
    assert not any("(ignore) occurs" in text for text in warnings)
    (dataset.folder / "preprocessed" / "factorizer_data_check.json").unlink()
    (dataset.folder / "preprocessed").rmdir()
    dataset.write(dataset.path("b"), np.full(SHAPE, 3, np.uint8))
    assert "no label file has any foreground: every voxel is 0 or 3 (ignore)" in dataset.problems()


def test_values_close_to_an_integer_are_shown_with_their_digits(dataset: Dataset) -> None:
    dataset.write(dataset.path("a"), dataset.label * np.float32(0.9999999))
    text = dataset.problems()
    assert "values that are not integers, such as 0.9999999, 1.9999998: nnU-Net finds none" in text
    assert "(0.9999999 becomes 0)" in text


@pytest.mark.parametrize("factor", [np.float32(1.0000001), np.float64(0.99999992)])
def test_the_command_that_rounds_a_label_does(tmp_path: Path, factor: np.floating) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    dataset = Dataset(folder)
    dataset.write(dataset.path("a"), dataset.label * factor)
    text = dataset.problems()
    assert SKIP_OPTION not in text
    command = next(line for line in text.splitlines() if "then round" in line).partition("round its values: ")[2]
    subprocess.run(["bash", "-c", command.replace("python ", f"{sys.executable} ", 1)], check=True)
    dataset.check()
    rounded = sitk.ReadImage(os.fspath(dataset.path("a")))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(rounded), dataset.label)
    np.testing.assert_allclose(rounded.GetSpacing(), SPACING)


def test_only_what_may_be_meant_may_be_used_as_it_is(dataset: Dataset) -> None:
    """nnU-Net gets past a constant image, but no option helps where a file cannot be read."""
    dataset.write(dataset.path("a", 0), np.full(SHAPE, 7, np.int16))
    assert dataset.problems().endswith(f"To use the data as they are: {SKIP_OPTION}")
    dataset.path("b", 0).write_bytes(b"no image")
    assert "2 problems" in dataset.problems() and SKIP_OPTION not in dataset.problems()


def test_copied_files_are_warnings(dataset: Dataset) -> None:
    shutil.copy(dataset.path("a", 0), dataset.path("b", 0))
    (warning,) = dataset.check().warnings
    assert warning.startswith(
        "images of different cases have the same content, such as a_0000.nii.gz and b_0000.nii.gz. Check that none"
    )
    shutil.copy(dataset.path("a"), dataset.path("b"))
    assert any(text.startswith("labels of different cases") for text in dataset.check().warnings)


def test_a_channel_copied_under_another_name_is_a_warning(dataset: Dataset) -> None:
    image, label = dataset.path("a", 0), dataset.path("a")
    expected = Expected(dataset.folder / "dataset.json", ("T1", "T2"), dataset.labels)
    case = CaseFiles("a", (image, image), label)
    checked = check_dataset([case], expected, dataset.reader, dataset.folder / "preprocessed", 1)
    assert [text.partition(",")[0] for text in checked.warnings] == ["channels of a case have the same content"]


def test_classes_that_hardly_occur_are_warnings(dataset: Dataset) -> None:
    dataset.labels[3] = "vessel"
    dataset.write(dataset.path("a"), (dataset.label > 0).astype(np.uint8))
    warnings = dataset.check().warnings
    assert any("label 2 (core) occurs in 1 of 2 cases" in text for text in warnings)
    assert any("label 3 (vessel) occurs in no case" in text for text in warnings)


def test_rare_classes_are_warnings_with_their_numbers() -> None:
    def warnings(cases: int, rare: int, voxels: int) -> list[str]:
        facts = {
            f"case_{n}": FileFacts(spacing=(1.0, 1.0, 1.0), values={0: 900, 1: 200} | ({2: voxels} if n < rare else {}))
            for n in range(cases)
        }
        expected = Expected(Path("dataset.json"), ("CT",), {0: "background", 1: "organ", 2: "cyst"})
        return list(dataset_warnings(facts, expected))

    (few,) = warnings(cases=40, rare=3, voxels=50)
    assert few.startswith("label 2 (cyst) occurs in 3 of 40 cases, fewer than nnU-Net has folds (5)")
    (small,) = warnings(cases=40, rare=20, voxels=4)
    assert small.startswith("label 2 (cyst) has 4 voxels in the median of its 20 cases")
    assert not warnings(cases=40, rare=5, voxels=8)
    assert not warnings(cases=4, rare=4, voxels=50)  # all cases have it


@pytest.mark.parametrize(("size", "warned"), [((1000.0, 900.0, 800.0), True), ((1e-3,) * 3, True), ((5, 0.4, 0.4), 0)])
def test_voxels_of_another_unit_are_a_warning(size: tuple[float, ...], warned: bool) -> None:
    facts = {f"case_{number}": FileFacts(spacing=(1.0, 0.9, 0.8), values={0: 900, 1: 200}) for number in range(4)}
    facts["odd"] = FileFacts(spacing=size, values={0: 900, 1: 200})
    warnings = list(dataset_warnings(facts, Expected(Path("dataset.json"), ("CT",), {0: "background", 1: "organ"})))
    assert len(warnings) == warned and all(text.startswith("case odd has voxels of ") for text in warnings)


def test_what_is_unchanged_is_not_read_again(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(check, "_READ_HERE_BYTES", 0)  # worker processes for little data, too
        assert dataset.check(processes=2).num_read == 4
    assert dataset.check().num_read == 0
    os.utime(dataset.path("a", 0))  # another time, the same content
    assert dataset.check().num_read == 0
    dataset.write(dataset.path("b"), np.roll(dataset.label, 1, 0))
    assert dataset.check().num_read == 1
    dataset.labels = {0: "background", 1: "edema"}  # decided without reading again
    with pytest.raises(UserError, match="does not declare: 2"):
        dataset.check()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "reader": "SimpleITKIO", "files": 3}']
)
def test_a_damaged_record_is_as_good_as_none(dataset: Dataset, text: str) -> None:
    dataset.check()
    (dataset.folder / "preprocessed" / "factorizer_data_check.json").write_text(text)
    assert dataset.check().num_read == 4


def test_the_record_is_json_with_a_digest_of_each_file(dataset: Dataset) -> None:
    dataset.check()
    record = json.loads((dataset.folder / "preprocessed" / "factorizer_data_check.json").read_text())
    assert set(record["files"]) == {str(dataset.path(c, n)) for c in "ab" for n in (0, None)}
