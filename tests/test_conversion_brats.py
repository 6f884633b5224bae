"""Conversion of BraTS 2021: trees named as the release is, found at any depth, refused whole if a file is bad."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from factorizer_nnunet.dataset_conversion.catalog import RELEASES
from factorizer_nnunet.dataset_conversion.convert import convert_release
from factorizer_nnunet.dataset_conversion.spec import LabelMap, Release
from factorizer_nnunet.errors import UserError

RELEASE = RELEASES["brats2021"]
SHAPE = (4, 5, 6)
ROOT = "RSNA_ASNR_MICCAI_BraTS2021_TrainingData_16July2021"
VALIDATION = "RSNA_ASNR_MICCAI_BraTS2021_ValidationData"
MODALITIES = ("t1", "t1ce", "t2", "flair")


def write(array: np.ndarray, path: Path, spacing: float = 1.0) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((spacing,) * 3)
    image.SetOrigin((0.0, -239.0, 0.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def write_case(folder: Path, *, label: bool = True, ending: str = ".nii.gz") -> None:
    rng = np.random.default_rng(int(folder.name[-5:]))
    for modality in MODALITIES:
        write(rng.integers(0, 900, SHAPE).astype(np.int16), folder / f"{folder.name}_{modality}{ending}")
    if label:
        write(rng.choice([0, 1, 2, 4], SHAPE).astype(np.uint8), folder / f"{folder.name}_seg{ending}")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write_case(folder / ROOT / "BraTS2021_00000")
    write_case(folder / ROOT / "BraTS2021_00002")
    write_case(folder / VALIDATION / "BraTS2021_00001", label=False)
    return folder


def convert(source: Path, raw: Path) -> Path:
    return convert_release(RELEASE, source, raw, 137, "BraTS2021")


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refusal(source: Path, raw: Path) -> str:
    """Convert, expect a refusal, and check that it left no trace."""
    before = digest(source)
    with pytest.raises(UserError) as error:
        convert(source, raw)
    assert digest(source) == before
    assert not raw.exists() or not any(raw.iterdir())
    return str(error.value)


def test_layout_names_and_values(source: Path, tmp_path: Path) -> None:
    before = digest(source)
    dataset = convert(source, tmp_path / "raw")
    assert dataset == tmp_path / "raw" / "Dataset137_BraTS2021"
    assert digest(source) == before
    assert sorted(path.name for path in dataset.iterdir()) == ["dataset.json", "imagesTr", "imagesTs", "labelsTr"]
    for case, part in (
        ("BraTS2021_00000", "imagesTr"),
        ("BraTS2021_00002", "imagesTr"),
        ("BraTS2021_00001", "imagesTs"),
    ):
        root = VALIDATION if part == "imagesTs" else ROOT
        for number, modality in enumerate(MODALITIES):
            copied = (dataset / part / f"{case}_{number:04d}.nii.gz").read_bytes()
            assert copied == (source / root / case / f"{case}_{modality}.nii.gz").read_bytes()
    assert sorted(path.name for path in (dataset / "labelsTr").iterdir()) == [
        "BraTS2021_00000.nii.gz",
        "BraTS2021_00002.nii.gz",
    ]
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["Dataset137_BraTS2021"]


def test_dataset_json_is_scheme_a_in_order(source: Path, tmp_path: Path) -> None:
    content = json.loads((convert(source, tmp_path / "raw") / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}
    assert list(content["labels"].items()) == [
        ("background", 0),
        ("whole tumor", [1, 2, 3]),
        ("tumor core", [2, 3]),
        ("enhancing tumor", [3]),
    ]
    assert content["regions_class_order"] == [1, 2, 3]
    assert content["numTraining"] == 2
    assert content["file_ending"] == ".nii.gz"


def test_nnunet_accepts_the_result(source: Path, tmp_path: Path) -> None:
    verify_dataset_integrity(str(convert(source, tmp_path / "raw")), num_processes=1)


def test_labels_come_back_and_keep_their_grid(source: Path, tmp_path: Path) -> None:
    dataset = convert(source, tmp_path / "raw")
    original = source / ROOT / "BraTS2021_00000" / "BraTS2021_00000_seg.nii.gz"
    written = dataset / "labelsTr" / "BraTS2021_00000.nii.gz"
    assert set(np.unique(read(written))) == {0, 1, 2, 3}
    np.testing.assert_array_equal(RELEASE.labels.inverse().apply(read(written)), read(original))
    assert sitk.ReadImage(str(written)).GetOrigin() == sitk.ReadImage(str(original)).GetOrigin()


def test_found_at_any_depth_and_among_other_things(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_case(source / "a" / "b" / "BraTS2021_00000" / "BraTS2021_00000")  # a doubled root
    write_case(source / "BraTS2021_00003")
    write_case(source / "__MACOSX" / "BraTS2021_00004")
    write_case(source / "BraTS20_Training_00005")  # another release
    (source / "BraTS2021_00003" / "notes.csv").write_text("x")
    dataset = convert(source, tmp_path / "raw")
    assert sorted(path.name for path in (dataset / "labelsTr").iterdir()) == [
        "BraTS2021_00000.nii.gz",
        "BraTS2021_00003.nii.gz",
    ]


def test_uncompressed_files_are_compressed_unchanged(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_case(source / "BraTS2021_00000", ending=".nii")
    original = source / "BraTS2021_00000" / "BraTS2021_00000_t2.nii"
    disguised = source / "BraTS2021_00000" / "BraTS2021_00000_flair.nii"
    shutil.move(disguised, disguised.with_name(disguised.name + ".gz"))
    dataset = convert(source, tmp_path / "raw")
    with gzip.open(dataset / "imagesTr" / "BraTS2021_00000_0002.nii.gz") as file:
        assert file.read() == original.read_bytes()
    with gzip.open(dataset / "imagesTr" / "BraTS2021_00000_0003.nii.gz") as file:
        assert file.read() == disguised.with_name(disguised.name + ".gz").read_bytes()


def test_equal_copies_count_once_and_different_ones_are_refused(source: Path, tmp_path: Path) -> None:
    copy = source / "again" / "BraTS2021_00000"
    shutil.copytree(source / ROOT / "BraTS2021_00000", copy)
    dataset = convert(source, tmp_path / "raw")
    assert json.loads((dataset / "dataset.json").read_text())["numTraining"] == 2
    write(np.ones(SHAPE, np.uint8), copy / "BraTS2021_00000_seg.nii.gz")
    assert "differs from the same case" in refusal(source, tmp_path / "raw2")


def test_all_problems_are_listed_at_once(source: Path, tmp_path: Path) -> None:
    case = source / ROOT / "BraTS2021_00000"
    other = source / ROOT / "BraTS2021_00002"
    (case / "BraTS2021_00000_t1.nii.gz").unlink()
    packed = other / "BraTS2021_00002_t2.nii.gz"
    packed.write_bytes(packed.read_bytes()[:-20])  # SimpleITK alone would read this without complaint
    write(np.full((4, 5, 5), 7, np.int16), other / "BraTS2021_00002_flair.nii.gz")
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 0, :3] = 3
    write(labels, other / "BraTS2021_00002_seg.nii.gz")
    text = refusal(source, tmp_path / "raw")
    assert text.startswith("5 problems")
    for expected in (
        "BraTS2021_00000: .*BraTS2021_00000: modality T1 is missing",
        "BraTS2021_00002: .*_t2.nii.gz: cannot be read",
        r"BraTS2021_00002: .*_flair.nii.gz: shape \(5, 5, 4\) differs from \(6, 5, 4\)",
        "BraTS2021_00002: .*_flair.nii.gz: is constant",
        r"BraTS2021_00002: .*_seg.nii.gz: unexpected label values 3 \(3 voxels\)",
    ):
        assert re.search(expected, text), (expected, text)


def test_missing_label_is_a_problem_only_outside_validation_folders(source: Path, tmp_path: Path) -> None:
    (source / ROOT / "BraTS2021_00002" / "BraTS2021_00002_seg.nii.gz").unlink()
    text = refusal(source, tmp_path / "raw")
    assert text.startswith("1 problems") and "BraTS2021_00002" in text and "label is missing" in text


@pytest.mark.parametrize(
    ("value", "expected"), [(1.5, "no integers, e.g. 1.5"), (np.nan, "1 voxels are NaN"), (5.0, "values 5")]
)
def test_float_labels_must_hold_integers(source: Path, tmp_path: Path, value: float, expected: str) -> None:
    labels = np.zeros(SHAPE, np.float32)
    labels[1, 1, 1] = value
    write(labels, source / ROOT / "BraTS2021_00000" / "BraTS2021_00000_seg.nii.gz")
    assert expected in refusal(source, tmp_path / "raw")


def test_scaled_labels_are_rounded(source: Path, tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.float32)
    labels[1, 1, 1] = 3.9999998
    write(labels, source / ROOT / "BraTS2021_00000" / "BraTS2021_00000_seg.nii.gz")
    dataset = convert(source, tmp_path / "raw")
    assert read(dataset / "labelsTr" / "BraTS2021_00000.nii.gz")[1, 1, 1] == 3


def test_other_spacing_and_bad_voxels_are_refused(source: Path, tmp_path: Path) -> None:
    case = source / ROOT / "BraTS2021_00000"
    write(read(case / "BraTS2021_00000_t2.nii.gz"), case / "BraTS2021_00000_t2.nii.gz", spacing=1.1)
    image = np.arange(120, dtype=np.float32).reshape(SHAPE)
    image[0, 0, 0] = np.inf
    write(image, case / "BraTS2021_00000_flair.nii.gz")
    text = refusal(source, tmp_path / "raw")
    assert "spacing" in text and "1 voxels are NaN or infinite" in text


def test_existing_data_set_is_refused_and_untouched(source: Path, tmp_path: Path) -> None:
    taken = tmp_path / "raw" / "Dataset137_Other"
    taken.mkdir(parents=True)
    with pytest.raises(UserError, match="already has Dataset137_Other.*choose another ID"):
        convert(source, tmp_path / "raw")
    assert not any(taken.iterdir())


@pytest.mark.parametrize(("dataset_id", "name"), [(0, "X"), (1000, "X"), (5, ""), (5, "a/b"), (5, "..")])
def test_bad_targets_are_refused(source: Path, tmp_path: Path, dataset_id: int, name: str) -> None:
    with pytest.raises(UserError, match="data set (ID|name)"):
        convert_release(RELEASE, source, tmp_path / "raw", dataset_id, name)


def test_nothing_found_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        convert(tmp_path / "nowhere", tmp_path / "raw")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no labelled case of BraTS 2021"):
        convert(tmp_path / "empty", tmp_path / "raw")


def test_an_interrupted_conversion_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("factorizer_nnunet.dataset_conversion.convert.write_dataset_json", full_disk)
        assert "No space left" in refusal(source, tmp_path / "raw")
    leftover = tmp_path / "raw" / ".Dataset137_BraTS2021.partial"  # of a conversion that was killed outright
    leftover.mkdir()
    (leftover / "old").write_text("x")
    assert not (convert(source, tmp_path / "raw") / "old").exists()
    assert not leftover.exists()


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
def test_every_release_is_consistent(release: Release) -> None:
    assert RELEASES[release.key] is release
    back = release.labels.inverse()
    raw = np.array(sorted(release.labels.to_nnunet))
    np.testing.assert_array_equal(back.apply(release.labels.apply(raw)), raw)
    regions = [set(values) for values in release.regions.values()]
    assert all(later <= earlier for earlier, later in zip(regions, regions[1:], strict=False))


def test_region_order_rebuilds_labels_from_regions() -> None:
    """What nnU-Net does at export, written out: later regions overwrite earlier ones."""
    labels = np.array([0, 1, 2, 3])
    rebuilt = np.zeros(4, int)
    for values, left in zip(RELEASE.regions.values(), RELEASE.regions_class_order, strict=True):
        rebuilt[np.isin(labels, values)] = left
    np.testing.assert_array_equal(rebuilt, labels)


def test_patient_key() -> None:
    assert RELEASE.patient("BraTS2021_00012") == "BraTS2021_00012"
    with pytest.raises(ValueError, match="is not a case ID of BraTS 2021"):
        RELEASE.patient("BraTS20_Training_001")


def test_merging_labels_have_no_way_back() -> None:
    with pytest.raises(ValueError, match="labels merge"):
        LabelMap({0: 0, 1: 1, 4: 1}).inverse()
