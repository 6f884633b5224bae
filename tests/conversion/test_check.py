"""Cases are read completely and all problems are reported at once, without exceptions."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from unittest import mock

import nibabel
import numpy as np
import pytest
from nifti_files import axes, write
from volumes import CHANNELS, OBLIQUE, SHAPE, SPACING, case_in, image_values, label_values, release

from factorizer_nnunet.dataset_conversion import check
from factorizer_nnunet.dataset_conversion.cases import SourceCase
from factorizer_nnunet.dataset_conversion.check import Examined, examine, grid_channel
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.spec import Channel, Release

SERIES = tuple(Channel(name, "{case}", volume=number) for name, number in (("T1", 1), ("FLAIR", 0)))
WITH_FLAIR = (*CHANNELS, Channel("FLAIR", "{case}_flair", own_grid=True))


def look(case: SourceCase, of: Release | None = None, **remap: int) -> Examined:
    of = of or release()
    options = Options(dataset_id=1, remap={"": {int(old[1:]): new for old, new in remap.items()}})
    return examine(of, of.channels, options, case)


def texts(examined: Examined) -> list[str]:
    return [f"{problem.path.name}: {problem.text}" for problem in examined.problems]


def notes(examined: Examined) -> list[str]:
    return [f"{note.path.name}: {note.text}" for note in examined.notes]


def test_facts_of_a_valid_case(tmp_path: Path) -> None:
    examined = look(case_in(tmp_path))
    assert examined.problems == examined.notes == ()
    assert [facts.treatment for facts in examined.images] == ["copy", "copy"]
    assert examined.images[0].grid.size == SHAPE
    assert examined.images[0].grid.spacing == pytest.approx(SPACING)
    low, high = np.percentile(image_values(0), (0.5, 99.5))
    assert (examined.images[0].low, examined.images[0].high) == pytest.approx((low, high))
    assert examined.label is not None and examined.label.counts == {1: 3, 2: 8, 4: 5}
    assert examined.label.grid.voxel_mm3 == pytest.approx(4.5)
    assert pickle.loads(pickle.dumps(examined)).label == examined.label  # it comes from worker processes


def test_the_thumbnail_shows_the_slice_with_most_label(tmp_path: Path) -> None:
    """Front of the head on top, patient's left at the right; pixels square in mm: 8 × 1 mm by 10 × 1.5 mm."""
    thumbnail = look(case_in(tmp_path)).thumbnail
    assert thumbnail is not None
    assert thumbnail.image.shape == thumbnail.label.shape == (15, 8)
    assert thumbnail.image.dtype == np.uint8 and thumbnail.image.max() == 255
    # In NIfTI's axes x runs to the right and y to the front: both are flipped in the picture.
    rows = ((np.arange(15) + 0.5) * 10 / 15).astype(int)
    np.testing.assert_array_equal(thumbnail.label, label_values()[:, rows, 2].T[::-1, ::-1])


def test_a_large_image_gives_a_small_thumbnail(tmp_path: Path) -> None:
    shape, affine = (400, 300, 4), axes((0.5, 0.5, 5.0))
    case = SourceCase("case", (write(tmp_path / "a.nii.gz", image_values(shape=shape), affine),), None, "case", "")
    thumbnail = look(case, release(CHANNELS[:1])).thumbnail
    assert thumbnail is not None and thumbnail.image.shape == (120, 160)
    assert not thumbnail.label.any()


def test_every_file_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "case.nii.gz", image_values(shape=(*SHAPE, 3)), OBLIQUE)
    case = SourceCase("case", (path, path), write(tmp_path / "seg.nii.gz", label_values(), OBLIQUE), "case", "")
    with mock.patch.object(check, "read_volume", wraps=check.read_volume) as read:
        examined = look(case, release(SERIES))
    assert read.call_count == 2
    assert examined.problems == () and [facts.treatment for facts in examined.images] == ["split", "split"]
    low, high = np.percentile(image_values(shape=(*SHAPE, 3))[..., 1], (0.5, 99.5))
    assert (examined.images[0].low, examined.images[0].high) == pytest.approx((low, high))


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    labels = label_values().astype(np.int16)
    labels[0, 0, 0] = -1
    case = case_in(tmp_path, label=labels, affine=axes((1.0, 1.5, 3.1), 20))
    write(tmp_path / "case_t2.nii.gz", np.full((8, 10, 5), 7, np.int16), OBLIQUE)
    content = (tmp_path / "case_t1.nii.gz").read_bytes()
    (tmp_path / "case_t1.nii.gz").write_bytes(content[:-30])
    examined = look(case)
    assert examined.images == () and examined.thumbnail is None
    assert len(examined.problems) == 3
    joined = "\n".join(texts(examined))
    assert "case_t1.nii.gz: is a truncated or damaged gzip file" in joined
    assert "case_t2.nii.gz: is constant: every voxel is 7" in joined
    assert "case_seg.nii.gz: 1 voxels have negative label values: -1" in joined
    assert {problem.case for problem in examined.problems} == {"case"}


def test_files_off_the_grid_are_problems(tmp_path: Path) -> None:
    case = case_in(tmp_path, affine=axes((1.0, 1.5, 3.1), 20))
    write(tmp_path / "case_t2.nii.gz", image_values(shape=(8, 10, 5)), OBLIQUE)
    expected = [
        "case_t2.nii.gz: shape (8, 10, 5) differs from (8, 10, 6) of case_t1.nii.gz",
        "case_seg.nii.gz: spacing (1.0, 1.5, 3.1) differs from (1.0, 1.5, 3.0) of case_t1.nii.gz; if the same voxels "
        "are meant nevertheless, give --ignore-geometry",
    ]
    assert texts(look(case)) == expected
    (tmp_path / "case_t1.nii.gz").write_bytes(b"")
    without_first = texts(look(case))  # then the second one gives the grid that the label is compared with
    assert without_first[0] == "case_t1.nii.gz: is empty: download or copy it again"
    assert without_first[1].startswith("case_seg.nii.gz: shape") and "case_t2.nii.gz" in without_first[1]


def test_small_geometry_differences_are_one_note_per_case(tmp_path: Path) -> None:
    affine = OBLIQUE.copy()
    affine[0, 3] += 4e-4
    case = case_in(tmp_path, affine=affine)
    affine[0, 0] += 1e-3 / 7 / 2  # over the 7 mm that there are along this axis: half a micrometre
    write(tmp_path / "case_t2.nii.gz", image_values(1), affine, codes=(0, 2))
    examined = look(case)
    assert examined.problems == () and examined.images[1].treatment == "copy"
    assert notes(examined) == [
        "case_t2.nii.gz: is offset from case_t1.nii.gz by up to 0.0009 mm, which is within the tolerance"
    ]


def test_rounding_of_headers_is_not_mentioned(tmp_path: Path) -> None:
    case = case_in(tmp_path, codes=(0, 2))
    write(tmp_path / "case_t2.nii.gz", image_values(1), OBLIQUE, codes=(2, 0))
    assert look(case).notes == ()


def test_a_channel_with_its_own_grid_is_resampled(tmp_path: Path) -> None:
    case = case_in(tmp_path)
    flair = write(tmp_path / "case_flair.nii.gz", image_values(2, (16, 20, 3)), axes((0.5, 0.75, 6.0)))
    examined = look(SourceCase("case", (*case.images, flair), case.label, "case", ""), release(WITH_FLAIR))
    assert examined.problems == ()
    assert [facts.treatment for facts in examined.images] == ["copy", "copy", "resample"]
    assert examined.images[2].grid.size == (16, 20, 3)
    on_the_grid = look(SourceCase("case", (*case.images, case.images[0]), None, "case", ""), release(WITH_FLAIR))
    assert on_the_grid.images[2].treatment == "copy"
    assert grid_channel(WITH_FLAIR[::-1]) == 1


def test_series_only_where_they_are_expected(tmp_path: Path) -> None:
    path = write(tmp_path / "case.nii.gz", image_values(shape=(*SHAPE, 4)), OBLIQUE)
    plain = look(SourceCase("case", (path,), path, "case", ""), release(CHANNELS[:1]))
    assert texts(plain) == ["case.nii.gz: is a series of 4 images, expected a single 3D image"]
    short = (Channel("T1", "{case}", volume=0), Channel("Tmax", "{case}", volume=4))
    wanting = look(SourceCase("case", (path, path), None, "case", ""), release(short))
    assert texts(wanting) == ["case.nii.gz: contains 4 images, expected a series with at least 5"]
    single = look(SourceCase("case", (case_in(tmp_path).images[0],) * 2, None, "case", ""), release(SERIES))
    assert len(single.problems) == 2 and "contains 1 images" in single.problems[0].text


def test_a_wrong_series_is_one_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "case.nii.gz", image_values(shape=(8, 10, 5, 2)), OBLIQUE)
    case = SourceCase("case", (path, path), write(tmp_path / "seg.nii.gz", label_values(), OBLIQUE), "case", "")
    assert texts(look(case, release(SERIES))) == ["seg.nii.gz: shape (8, 10, 6) differs from (8, 10, 5) of case.nii.gz"]


def test_single_axes_are_dropped_with_a_note(tmp_path: Path) -> None:
    case = case_in(tmp_path)
    write(case.images[1], image_values(1, (*SHAPE, 1)), OBLIQUE)
    examined = look(case)
    assert examined.problems == () and examined.images[1].treatment == "rewrite"
    assert notes(examined) == ["case_t2.nii.gz: shape (8, 10, 6, 1) is read as (8, 10, 6)"]


def test_names_that_contradict_the_compression_are_noted(tmp_path: Path) -> None:
    case = case_in(tmp_path)
    case.images[0].write_bytes(gzip.decompress(case.images[0].read_bytes()))
    renamed = case.images[1].rename(tmp_path / "t2.nii")
    examined = look(SourceCase("case", (case.images[0], renamed), case.label, "case", ""))
    assert examined.problems == ()
    assert [facts.treatment for facts in examined.images] == ["compress", "copy"]
    assert notes(examined) == [
        "case_t1.nii.gz: is not compressed despite its name",
        "t2.nii: is compressed despite its name",
    ]


def test_skewed_axes_are_repaired_with_a_note(tmp_path: Path) -> None:
    affine = OBLIQUE @ np.array([[1, 1e-2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    files = [write(tmp_path / f"{k}.nii.gz", image_values(k), affine, codes=(0, 2)) for k in range(2)]
    label = write(tmp_path / "seg.nii.gz", label_values(), affine, codes=(0, 2))
    examined = look(SourceCase("case", tuple(files), label, "case", ""))
    assert examined.problems == () and len(examined.notes) == 3
    assert [facts.treatment for facts in examined.images] == ["rewrite", "rewrite"]


@pytest.mark.parametrize("allowed", [False, True])
def test_constant_images(tmp_path: Path, allowed: bool) -> None:
    case = case_in(tmp_path)
    write(case.images[1], np.zeros(SHAPE, np.float32), OBLIQUE)
    examined = look(case, release(constant_allowed=allowed))
    said, empty = (notes, texts) if allowed else (texts, notes)
    assert said(examined) == ["case_t2.nii.gz: is constant: every voxel is 0"] and not empty(examined)
    assert (examined.images[1].low, examined.images[1].high) == (0, 0)


@pytest.mark.parametrize("zeroed", [False, True])
def test_voxels_that_are_not_finite(tmp_path: Path, zeroed: bool) -> None:
    values = image_values(dtype="float32")
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    case = case_in(tmp_path)
    write(case.images[0], values, OBLIQUE)
    examined = look(case, release(non_finite_to_zero=zeroed))
    if zeroed:
        assert notes(examined) == ["case_t1.nii.gz: 3 voxels are NaN or infinite; they are set to 0"]
        assert examined.problems == () and examined.images[0].treatment == "rewrite"
        assert 0 < examined.images[0].low < examined.images[0].high < 900
    else:
        assert texts(examined) == ["case_t1.nii.gz: 3 voxels are NaN or infinite"]


def test_scaled_labels_are_rounded(tmp_path: Path) -> None:
    labels = label_values().astype(np.uint16)
    labels[labels > 0] = 65535
    examined = look(case_in(tmp_path, label=labels, slope=1.5259021893e-05))
    assert examined.problems == () and examined.label is not None
    assert examined.label.counts == {1: 16}
    assert examined.thumbnail is not None and set(np.unique(examined.thumbnail.label)) == {0, 1}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, "1 voxels are not integers, e.g. 1.5"),
        (np.nan, "1 voxel is NaN or infinite"),
        (np.inf, "1 voxel is NaN or infinite"),
        (-2.0, "1 voxels have negative label values: -2"),
    ],
)
def test_labels_that_make_no_sense(tmp_path: Path, value: float, expected: str) -> None:
    labels = label_values().astype(np.float32)
    labels[0, 0, 0] = value
    examined = look(case_in(tmp_path, label=labels))
    assert texts(examined) == [f"case_seg.nii.gz: {expected}"]
    assert examined.label is None


def test_an_empty_label_is_a_note(tmp_path: Path) -> None:
    examined = look(case_in(tmp_path, label=np.zeros(SHAPE, np.uint8)))
    assert examined.problems == () and examined.label is not None and examined.label.counts == {}
    assert notes(examined) == ["case_seg.nii.gz: empty label: every voxel is background"]


def test_values_are_replaced_first(tmp_path: Path) -> None:
    labels = label_values()
    labels[labels == 4] = 6
    examined = look(case_in(tmp_path, label=labels), _6=0, _2=1)
    assert examined.label is not None and examined.label.counts == {1: 11}
    assert examined.thumbnail is not None and set(np.unique(examined.thumbnail.label)) == {0, 1}
    assert look(case_in(tmp_path, label=labels), _6=0, _2=0, _1=0).notes[0].text.startswith("empty label")


def test_a_case_without_label(tmp_path: Path) -> None:
    case = case_in(tmp_path)
    examined = look(SourceCase("case", case.images, None, "case", ""))
    assert examined.problems == () and examined.label is None and examined.thumbnail is not None


def test_files_that_are_not_images_do_not_raise(tmp_path: Path) -> None:
    case = case_in(tmp_path)
    case.images[0].unlink()
    case.images[1].write_bytes(b"what is this " * 100)
    assert case.label is not None
    case.label.write_bytes(nibabel.Nifti1Image(np.zeros((3, 3), np.uint8), np.eye(4)).to_bytes())
    examined = look(case)
    assert len(examined.problems) == 3 and examined.images == ()
    assert "No such file" in "\n".join(texts(examined))
