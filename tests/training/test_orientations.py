"""Orientations of the training images go into the model's copy of the fingerprint."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from factorizer_nnunet.nnunet.training_images import TrainingImages, orientation_of_properties, training_images
from factorizer_nnunet.training.orientations import add_orientations

LPS, PIR = (1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, -1, 1, 0, 0, 0, -1, 0)


def write_properties(folder: Path, case: str, direction: tuple[float, ...] | None) -> None:
    folder.mkdir(exist_ok=True)
    stuff = {} if direction is None else {"sitk_stuff": {"direction": direction}}
    (folder / f"{case}.pkl").write_bytes(pickle.dumps({"spacing": [1, 1, 1], **stuff}))


@pytest.fixture
def fingerprint(tmp_path: Path) -> Path:
    file = tmp_path / "dataset_fingerprint.json"
    file.write_text(json.dumps({"spacings": [[1, 2, 3]], "shapes_after_crop": [[5, 6, 7]]}))
    return file


def test_orientations_of_all_cases_are_added(tmp_path: Path, fingerprint: Path) -> None:
    before = training_images(tmp_path)
    for case, direction in (("a", LPS), ("b", PIR), ("c", LPS)):
        write_properties(tmp_path / "data", case, direction)
    add_orientations(fingerprint, tmp_path / "data")
    assert training_images(tmp_path) == TrainingImages(before.spacing_mm, before.size_mm, ("LPS", "PIR"))


@pytest.mark.parametrize("direction", [None, (1, 0, 0, 1)])
def test_nothing_is_added_where_one_is_not_known(
    tmp_path: Path, fingerprint: Path, direction: tuple[float, ...] | None
) -> None:
    before = fingerprint.read_bytes()
    add_orientations(fingerprint, tmp_path / "missing")
    write_properties(tmp_path / "data", "a", LPS)
    write_properties(tmp_path / "data", "b", direction)
    add_orientations(fingerprint, tmp_path / "data")
    assert fingerprint.read_bytes() == before


@given(st.permutations(range(3)), st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3))
def test_the_code_names_where_each_axis_leads(order: list[int], signs: tuple[float, float, float]) -> None:
    direction = np.zeros((3, 3))
    for axis, (along, sign) in enumerate(zip(order, signs, strict=True)):
        direction[along, axis] = sign
    letters = [
        ("RL"[sign > 0], "AP"[sign > 0], "IS"[sign > 0])[along] for along, sign in zip(order, signs, strict=True)
    ]
    code = orientation_of_properties({"sitk_stuff": {"direction": tuple(direction.ravel())}})
    assert code == "".join(letters)


def test_an_image_turned_as_the_warning_advises_has_the_code(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.float32))
    image.SetDirection(PIR)
    for name, one in (("stored", image), ("turned", sitk.DICOMOrient(image, "LPS"))):
        sitk.WriteImage(one, str(tmp_path / f"{name}.nii.gz"))
    codes = [
        orientation_of_properties(SimpleITKIO().read_images([str(tmp_path / f"{name}.nii.gz")])[1])
        for name in ("stored", "turned")
    ]
    assert codes == ["PIR", "LPS"]
