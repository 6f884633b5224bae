"""Data sets of other formats than NIfTI are scored and reported by the commands, with pictures of the right planes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from skimage import io

from factorizer_nnunet import cli

CASES = ("cell_1", "cell_2", "cell_3")


def _pixels(path: Path, values: np.ndarray) -> None:
    io.imsave(path, values.T, check_contrast=False)


def _flat_nifti(path: Path, values: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(values, np.diag([0.5, 0.5, 1, 1])), path)


def _deep_tiff(path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(path, np.stack([values.T] * 4), photometric="minisblack")
    sizes = path.with_name(path.stem.removesuffix("_0000") + ".json")
    sizes.write_text(json.dumps({"spacing": [3.0, 0.5, 0.5]}))


def _with_sitk(path: Path, values: np.ndarray) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(values.T), str(path))


FORMATS: dict[str, tuple[str, Callable[[Path, np.ndarray], None], int]] = {  # and the number of planes shown
    "png": (".png", _pixels, 1),
    "bmp": (".bmp", _pixels, 1),
    "2d tiff": (".tif", _pixels, 1),
    "3d tiff": (".tiff", _deep_tiff, 3),
    "2d nifti": (".nii.gz", _flat_nifti, 1),
    "2d nrrd": (".nrrd", _with_sitk, 1),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_data_set_of_another_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    ending, write, planes = FORMATS[name]
    raw = tmp_path / "nnUNet_raw" / "Dataset009_Cells"
    for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(folder, str(tmp_path / folder))
    predictions = tmp_path / "predictions"
    for folder in (raw / "imagesTr", raw / "labelsTr", predictions):
        folder.mkdir(parents=True)
    content = {"channel_names": {"0": "light"}, "labels": {"background": 0, "cell": 1, "nucleus": 2},
               "numTraining": len(CASES), "file_ending": ending}  # fmt: skip
    for folder in (raw, predictions):
        (folder / "dataset.json").write_text(json.dumps(content))
    for number, case in enumerate(CASES):
        labels = np.zeros((20, 14), np.uint8)
        labels[3:15, 2:10], labels[6:9, 4:7] = 1, 2
        write(raw / "labelsTr" / f"{case}{ending}", labels)
        write(raw / "imagesTr" / f"{case}_0000{ending}", 60 * labels + 10)
        labels[12 : 12 + number] = 0  # rows that the prediction misses
        write(predictions / f"{case}{ending}", labels)

    out, page = tmp_path / "scores", tmp_path / "page.html"
    arguments = ["evaluate", "-p", predictions, "-r", raw / "labelsTr", "-o", out, "-np", 1]
    assert cli.main([str(argument) for argument in arguments]) == 0
    with (out / "scores.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["region"], row["metric"]) == ("cell", "dice")]
    cell = 12 * 8 - 9
    expected = {case: 2 * (cell - 8 * missed) / (2 * cell - 8 * missed) for missed, case in enumerate(CASES)}
    assert {row["case"]: float(row["value"]) for row in rows} == pytest.approx(expected, abs=1e-6)

    arguments = ["report", predictions, "--references", raw / "labelsTr", "--images", raw / "imagesTr", "-o", page]
    assert cli.main([str(argument) for argument in arguments]) == 0
    text = page.read_text()
    assert text.count('class="case"') == len(CASES)
    assert text.count('<img src="data:image/jpeg') == len(CASES) * planes * 3  # image, reference, prediction
