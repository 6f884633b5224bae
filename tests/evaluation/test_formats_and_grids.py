"""Formats of label files, grids that differ a little, and which dataset.json counts."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from score_example import AFFINE, labels_of, write
from skimage import io

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.dataset_files import find_dataset_json
from factorizer_nnunet.evaluation.evaluate import evaluate_folder
from factorizer_nnunet.evaluation.reading import read_labels
from factorizer_nnunet.evaluation.regions import regions_of
from factorizer_nnunet.imaging.grid import Grid, geometry_difference
from factorizer_nnunet.imaging.labels import integer_labels

LABELS = {"background": 0, "tumor": 1}


def flat_nifti(path: Path, labels: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), path)


def with_sitk(path: Path, labels: np.ndarray) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(labels.T), str(path))


def with_skimage(path: Path, labels: np.ndarray) -> None:
    io.imsave(path, labels.T, check_contrast=False)


@pytest.mark.parametrize(
    ("ending", "save"),
    [(".png", with_skimage), (".bmp", with_skimage), (".tif", with_skimage), (".PNG", with_skimage),
     (".nii.gz", flat_nifti), (".nii", flat_nifti), (".mha", with_sitk), (".nrrd", with_sitk)],
)  # fmt: skip
def test_2d_files_are_scored_by_their_outlines(
    tmp_path: Path, ending: str, save: Callable[[Path, np.ndarray], None]
) -> None:
    """A square of 10 × 10 pixels, and the same square 3 pixels further: two of four sides are 3 pixels apart."""
    reference = np.zeros((30, 24), np.uint8)
    reference[5:15, 6:16] = 1
    for folder, labels in (("r", reference), ("p", np.roll(reference, 3, axis=0))):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / f"a{ending}", labels)
    scores = evaluate_folder(tmp_path / "p", tmp_path / "r")
    assert scores.value("a", "1", "dice") == pytest.approx(0.7)
    assert scores.value("a", "1", "hd95") == pytest.approx(3.0)
    assert scores.value("a", "1", "lesions_detected") == 1
    assert scores.value("a", "1", "tn") == 30 * 24 - 130


def test_3d_tiffs_have_the_voxel_size_of_nnunets_file(tmp_path: Path) -> None:
    for folder, shift in (("r", 0), ("p", 2)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", np.roll(labels_of(0), shift, axis=2).T)
        (tmp_path / folder / "a.json").write_text('{"spacing": [3, 0.8, 0.5]}')
    image = read_labels(tmp_path / "r" / "a.tif")
    assert image.grid.size == (12, 10, 8) and image.grid.spacing == (0.5, 0.8, 3.0)
    assert evaluate_folder(tmp_path / "p", tmp_path / "r").value("a", "1", "hd95") == pytest.approx(6.0)
    (tmp_path / "r" / "a.json").write_text('{"spacing": [3, -1, 0.5]}')
    with pytest.raises(UserError, match=r"a.tif: has an invalid voxel size in .*a.json"):
        evaluate_folder(tmp_path / "p", tmp_path / "r")


def test_colours_and_2d_against_3d_are_refused(tmp_path: Path) -> None:
    for folder in ("r", "p"):
        (tmp_path / folder).mkdir()
        with_skimage(tmp_path / folder / "a.png", np.ones((9, 8), np.uint8))
    io.imsave(tmp_path / "p" / "a.png", np.ones((8, 9, 3), np.uint8), check_contrast=False)
    with pytest.raises(UserError, match=r"p/a.png: has pixels of shape \(8, 9, 3\), expected one grey value"):
        evaluate_folder(tmp_path / "p", tmp_path / "r")
    (tmp_path / "p" / "a.png").unlink()
    write(tmp_path / "p" / "a.nii.gz", np.ones((9, 8, 1), np.uint8))
    with pytest.raises(UserError, match=r"shape \(9, 8, 1\) differs from \(9, 8\)"):
        evaluate_folder(tmp_path / "p", tmp_path / "r")


def test_labels_in_double_precision_need_little_memory(tmp_path: Path) -> None:
    values = np.zeros((100, 100, 100))
    values[20:50, 20:50, 20:50] = 3
    tracemalloc.start()
    labels = integer_labels(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert labels.dtype == np.uint8 and peak < 3 * values.size
    np.testing.assert_array_equal(labels, values)
    np.testing.assert_array_equal(integer_labels(np.array([[-2.0, 300.0]])), [[-2, 300]])
    with pytest.raises(ValueError, match="as large as 1e"):
        integer_labels(np.array([[0.0, 1e18]]))


def grid(**changes: tuple[float, ...]) -> Grid:
    values = {"size": (16, 16, 10), "spacing": (0.9375, 0.9375, 4.0), "origin": (-7.5, 3.0, 11.0)}
    return Grid(**{**values, "direction": tuple(np.eye(3).ravel()), **changes})


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"origin": (-7.502, 3.0, 11.0)}, None),
        ({"spacing": (0.94, 0.9375, 4.0)}, None),  # 15 × 0.0025 mm is 4 % of a voxel
        ({"origin": (-7.5, 3.0, 11.19)}, None),  # 4.75 % of a thick slice
        ({"origin": (-7.5, 3.0, 11.21)}, "origin"),
        ({"origin": (-7.45, 3.0, 11.0)}, "origin"),
        ({"spacing": (0.945, 0.9375, 4.0)}, "spacing"),
        ({"direction": (0.999, -0.0447, 0, 0.0447, 0.999, 0, 0, 0, 1)}, "direction"),
        ({"origin": (float("nan"), 3.0, 11.0)}, "origin"),
        ({"size": (16, 16, 9)}, "shape"),
    ],
)
def test_grids_may_differ_by_five_percent_of_a_voxel(changes: dict, differs: str | None) -> None:
    found = geometry_difference(grid(**changes), grid())
    assert found is None if differs is None else found is not None and found.startswith(differs)


def test_a_single_slice_of_another_thickness_differs() -> None:
    flat = {"size": (16, 16, 1)}
    assert geometry_difference(grid(**flat, spacing=(0.9375, 0.9375, 5.0)), grid(**flat)) is not None


def test_geometry_is_ignored_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 1
    write(tmp_path / "r" / "a.nii.gz", labels_of(0))
    write(tmp_path / "p" / "a.nii.gz", labels_of(0), moved)
    command = [
        "evaluate",
        "-p",
        str(tmp_path / "p"),
        "-r",
        str(tmp_path / "r"),
        "-o",
        str(tmp_path / "out"),
        "-np",
        "1",
    ]
    assert cli.main(command) == 2
    assert "--ignore-geometry" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert cli.main([*command, "--ignore-geometry"]) == 0
    assert "Geometry of the files: ignored" in (tmp_path / "out" / "scores.md").read_text()


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """References in raw/labelsTr below a dataset.json, and predictions."""
    write(tmp_path / "raw" / "labelsTr" / "a.nii.gz", labels_of(0) * (labels_of(0) == 1))
    write(tmp_path / "p" / "a.nii.gz", labels_of(1) * (labels_of(1) == 1))
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps({"labels": LABELS}))
    return tmp_path


def test_the_same_folder_spelled_otherwise_gives_the_same(
    data_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    references = data_set / "raw" / "labelsTr"
    (data_set / "link").symlink_to(references)
    monkeypatch.setenv("HOME", str(data_set))
    monkeypatch.chdir(references)
    spellings = (".", "../labelsTr", os.fspath(references), "../../link", "~/link", "~/raw/labelsTr")
    for number, spelling in enumerate(spellings):
        out = data_set / f"out{number}"
        assert cli.main(["evaluate", "-p", "../../p", "-r", spelling, "-o", str(out), "-np", "1"]) == 0
        assert f"dataset.json: {data_set / 'raw' / 'dataset.json'}" in capsys.readouterr().out
        assert (out / "scores.csv").read_bytes() == (data_set / "out0" / "scores.csv").read_bytes()
        assert ",tumor," in (out / "scores.csv").read_text()


def test_files_that_contradict_each_other_are_refused(data_set: Path) -> None:
    predictions, references = data_set / "p", data_set / "raw" / "labelsTr"
    own = predictions / "dataset.json"
    own.write_text(json.dumps({"labels": {"background": 0, "TUMOR": 1}, "numTraining": 7}))
    found = find_dataset_json(predictions, references)
    assert found is not None and found.path == own and dict(regions_of(found).labels) == {"TUMOR": (1,)}
    own.write_text(json.dumps({"labels": {"background": 0, "tumor": 1, "ignore": 2}}))
    with pytest.raises(UserError, match=r"p/dataset.json of the predictions and .*raw/dataset.json of the references"):
        find_dataset_json(predictions, references)


def test_files_that_cannot_be_read_are_not_called_empty(tmp_path: Path) -> None:
    """Without dataset.json, the values of the labels come from the files."""
    for folder in ("p", "r"):
        (tmp_path / folder).mkdir()
        io.imsave(tmp_path / folder / "a.png", np.full((8, 9, 3), 2, np.uint8), check_contrast=False)
    with pytest.raises(UserError, match=r"a\.png: has pixels of shape .* is it a colour image\?"):
        evaluate_folder(tmp_path / "p", tmp_path / "r")
