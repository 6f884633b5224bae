"""Cases are found by their names, and all that is wrong is said at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.image_files import ImageCase, find_cases


def folder_of(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).touch()
    return path


def one_channel(files: Sequence[Path]) -> int:
    return 1


def test_cases_have_their_channels_in_order(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "in", "b_0001.nii", "b_0000.nii", "a_7_0000.nii", "a_7_0001.nii", ".b_0000.nii")
    assert find_cases(images, ".nii", 2, one_channel) == [
        ImageCase("a_7", (images / "a_7_0000.nii", images / "a_7_0001.nii")),
        ImageCase("b", (images / "b_0000.nii", images / "b_0001.nii")),
    ]


def test_all_problems_are_listed(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "in", "a_0000.nii", "b_0000.nii", "b_0001.nii", "b_0002.nii", "c.nii", "d_0001.nii")
    with pytest.raises(UserError) as error:
        find_cases(images, ".nii", 2, one_channel)
    assert str(error.value).endswith(
        "which takes 2 channels: c.nii is not named CASE_0000.nii, such as c_0000.nii, a lacks _0001, b has unexpected "
        "_0002, d lacks _0000"
    )


def test_a_file_may_hold_all_channels(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "in", "a_0000.png", "b_0000.png")
    assert [case.files for case in find_cases(images, ".png", 3, lambda files: 3)] == [
        (images / "a_0000.png",),
        (images / "b_0000.png",),
    ]
    with pytest.raises(UserError, match="a lacks _0001, _0002, b lacks"):
        find_cases(images, ".png", 3, one_channel)


def test_the_previous_stage_must_have_every_case(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "in", "a_0000.nii", "b_0000.nii")
    previous = folder_of(tmp_path / "lowres", "a.nii")
    with pytest.raises(UserError, match="b: no segmentation b.nii of the previous stage"):
        find_cases(images, ".nii", 1, one_channel, [previous])
    (previous / "b.nii").touch()
    assert [case.previous for case in find_cases(images, ".nii", 1, one_channel, [previous])] == [
        (previous / "a.nii",),
        (previous / "b.nii",),
    ]


@pytest.mark.parametrize(
    ("names", "fix"),
    [
        ((), "Name the folder"),
        (("a.nii.gz", "dataset.json"), "a.nii.gz becomes a_0000.nii.gz"),
        (("a.mha",), "the model takes .nii.gz files"),
    ],
)
def test_a_folder_without_images_is_refused(tmp_path: Path, names: tuple[str, ...], fix: str) -> None:
    with pytest.raises(UserError, match=rf"has no images CASE_0000.nii.gz.*{fix}"):
        find_cases(folder_of(tmp_path / "in", *names), ".nii.gz", 1, one_channel)
