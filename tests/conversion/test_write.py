"""Written files equal their sources: bytes if nothing changes, otherwise voxels, grid and volumes."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nifti_files import axes, write
from volumes import CHANNELS, OBLIQUE, SCHEME, SHAPE, case_in, image_values, label_values, phantom, release

from factorizer_nnunet.dataset_conversion.cases import SourceCase
from factorizer_nnunet.dataset_conversion.check import examine
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.spec import Channel, LabelMap, LabelScheme, Release
from factorizer_nnunet.dataset_conversion.write import Registered, dataset_json, write_case

SERIES = tuple(Channel(name, "{case}", volume=number) for name, number in (("T1", 1), ("T2", 2), ("FLAIR", 0)))
WITH_FLAIR = (Channel("DWI", "{case}_dwi"), Channel("FLAIR", "{case}_flair", own_grid=True))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def convert(
    case: SourceCase,
    out: Path,
    of: Release | None = None,
    *,
    scheme: LabelScheme = SCHEME,
    remap: dict[int, int] | None = None,
    link: bool = False,
    register: bool = True,
) -> list[Registered]:
    """Examine and write; the source must not change."""
    of = of or release()
    before = digest(case)
    options = Options(dataset_id=1, link=link, register=register, remap={"": remap or {}})
    examined = examine(of, of.channels, options, case)
    assert examined.problems == ()
    written = write_case(of, of.channels, scheme, out, options, examined)
    assert digest(case) == before
    return written


def digest(case: SourceCase) -> list[str]:
    files = (*case.images, case.label)
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path is not None]


def image_of(out: Path, number: int, part: str = "imagesTr") -> sitk.Image:
    return sitk.ReadImage(str(out / part / f"case_{number:04d}.nii.gz"))


def voxels(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image).T


def geometry(image: sitk.Image) -> tuple:
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def volumes_mm3(path: Path, regions: dict[str, tuple[int, ...]]) -> dict[str, float]:
    """Volumes computed with nibabel from the file."""
    image = nibabel.load(path)
    values, voxel = np.rint(image.get_fdata()), np.prod(image.header.get_zooms())
    return {name: float(np.isin(values, region).sum() * voxel) for name, region in regions.items()}


def test_unchanged_files_are_copied_byte_for_byte(source: Path, out: Path) -> None:
    case = case_in(source)
    assert convert(case, out) == []
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "imagesTr/case_0000.nii.gz",
        "imagesTr/case_0001.nii.gz",
        "labelsTr/case.nii.gz",
    ]
    for number, path in enumerate(case.images):
        target = out / "imagesTr" / f"case_{number:04d}.nii.gz"
        assert target.read_bytes() == path.read_bytes() and not target.is_symlink()


def test_links_point_to_the_real_files(source: Path, out: Path) -> None:
    case = case_in(source / "real")
    case.images[1].write_bytes(gzip.decompress(case.images[1].read_bytes()))  # must be compressed: no link
    (source / "alias").symlink_to("real")
    alias = SourceCase("case", tuple(source / "alias" / path.name for path in case.images), case.label, "case", "")
    convert(alias, out, link=True)
    first = out / "imagesTr" / "case_0000.nii.gz"
    assert first.is_symlink() and first.readlink() == case.images[0].resolve()
    np.testing.assert_array_equal(voxels(image_of(out, 0)), image_values(0))
    assert not (out / "imagesTr" / "case_0001.nii.gz").is_symlink()
    assert not (out / "labelsTr" / "case.nii.gz").is_symlink()


def test_plain_files_are_compressed_unchanged(source: Path, out: Path) -> None:
    case = case_in(source)
    plain = source / "case_t1.nii"
    plain.write_bytes(gzip.decompress(case.images[0].read_bytes()))
    convert(SourceCase("case", (plain, case.images[1]), case.label, "case", ""), out)
    assert gzip.decompress((out / "imagesTr" / "case_0000.nii.gz").read_bytes()) == plain.read_bytes()


def test_unlabelled_cases_are_test_cases(source: Path, out: Path) -> None:
    case = case_in(source)
    convert(SourceCase("case", case.images, None, "case", ""), out)
    assert [path.name for path in out.iterdir()] == ["imagesTs"]


def test_labels_are_mapped_on_the_grid_of_the_image(source: Path, out: Path) -> None:
    case = case_in(source, codes=(0, 2))  # as in ISLES 2022: other codes than the image's
    convert(case, out)
    written = out / "labelsTr" / "case.nii.gz"
    label = sitk.ReadImage(str(written))
    assert geometry(label) == geometry(image_of(out, 0))
    assert label.GetPixelID() == sitk.sitkUInt8
    np.testing.assert_array_equal(voxels(label), SCHEME.labels.apply(label_values()))
    header = nibabel.load(written).header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)


def test_regions_keep_their_volume(source: Path, out: Path) -> None:
    case = case_in(source)
    convert(case, out)
    assert case.label is not None
    raw = {"whole tumor": (1, 2, 4), "tumor core": (1, 4), "enhancing tumor": (4,)}
    before, after = volumes_mm3(case.label, raw), volumes_mm3(out / "labelsTr" / "case.nii.gz", dict(SCHEME.regions))
    assert before == after and before["enhancing tumor"] == pytest.approx(5 * 4.5)


def test_scaled_and_replaced_labels(source: Path, out: Path) -> None:
    labels = label_values().astype(np.uint16)
    labels[labels == 1] = 6
    labels[labels == 2] = 65535
    binary = LabelScheme(LabelMap({0: 0, 1: 1}), {"lesion": (1,)})
    slope = 1.5259021893e-05
    # 6 and 4 are scaled to nearly 0: only 65535 remains.
    case = case_in(source, label=np.where(labels == 65535, labels, 0).astype(np.uint16), slope=slope)
    convert(case, out, scheme=binary)
    np.testing.assert_array_equal(voxels(sitk.ReadImage(str(out / "labelsTr" / "case.nii.gz"))), label_values() == 2)
    labels[labels == 65535] = 2
    convert(case_in(source, label=labels), out, remap={6: 0, 4: 1})
    expected = np.select([label_values() == 2, label_values() == 4], [1, 2])
    np.testing.assert_array_equal(voxels(sitk.ReadImage(str(out / "labelsTr" / "case.nii.gz"))), expected)


def test_values_outside_the_scheme_are_not_written(source: Path, out: Path) -> None:
    with pytest.raises(ValueError, match="values"):
        convert(case_in(source), out, scheme=LabelScheme(LabelMap({0: 0, 1: 1}), {"lesion": (1,)}))
    assert not list((out / "labelsTr").iterdir())


@pytest.mark.parametrize("dtype", ["float32", "int16", ">i2"])
def test_a_series_is_split(source: Path, out: Path, dtype: str) -> None:
    values = image_values(shape=(*SHAPE, 4), dtype=dtype)
    path = source / "case.nii.gz"
    source.mkdir()
    header = nibabel.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    nibabel.save(nibabel.Nifti1Image(values, OBLIQUE, header, dtype=dtype), path)
    label = write(source / "seg.nii.gz", label_values(), OBLIQUE)
    convert(SourceCase("case", (path,) * 3, label, "case", ""), out, release(SERIES))
    for number, volume in enumerate((1, 2, 0)):
        written = nibabel.load(out / "imagesTr" / f"case_{number:04d}.nii.gz")
        assert written.shape == SHAPE and written.get_data_dtype() == np.dtype(dtype)
        np.testing.assert_array_equal(np.asanyarray(written.dataobj), values[..., volume])
        np.testing.assert_array_equal(written.affine, nibabel.load(path).affine)
    assert geometry(sitk.ReadImage(str(out / "labelsTr" / "case.nii.gz"))) == geometry(image_of(out, 2))


def test_scaled_voxels_that_are_not_finite_become_zero(source: Path, out: Path) -> None:
    values = image_values(dtype="float32")
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    case = case_in(source)
    image = nibabel.Nifti1Image(values, OBLIQUE)
    image.header.set_slope_inter(2.0, -8.0)
    nibabel.save(image, case.images[0])
    write(case.images[1], values[..., None], OBLIQUE)  # not scaled, with an axis too many
    convert(case, out, release(non_finite_to_zero=True))
    for number, scaled in enumerate((values * 2 - 8, values)):
        written = voxels(image_of(out, number))
        assert not written[0, 0, :3].any()
        np.testing.assert_allclose(written[1:], scaled[1:])


def test_skewed_headers_are_written_straight(source: Path, out: Path) -> None:
    affine = OBLIQUE @ np.array([[1, 1e-2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    files = tuple(write(source / f"{k}.nii.gz", image_values(k), affine, codes=(0, 2)) for k in range(2))
    label = write(source / "seg.nii.gz", label_values(), affine, codes=(0, 2))
    convert(SourceCase("case", files, label, "case", ""), out)
    assert geometry(image_of(out, 0)) == geometry(image_of(out, 1))
    assert geometry(image_of(out, 0)) == geometry(sitk.ReadImage(str(out / "labelsTr" / "case.nii.gz")))
    np.testing.assert_array_equal(voxels(image_of(out, 1)), image_values(1))


def flair_case(source: Path) -> SourceCase:
    """A FLAIR image with thick slices and a header that is off by 6 mm to the left."""
    source.mkdir()
    dwi, flair = phantom((40, 46, 30), (4.0, 4.0, 4.0)), phantom((90, 104, 24), (1.8, 1.8, 5.0))
    flair.SetOrigin(np.add(flair.GetOrigin(), (6.0, 0, 0)).tolist())
    label = sitk.Cast(dwi > 900, sitk.sitkUInt8)
    for image, name in ((dwi, "dwi"), (flair, "flair"), (label, "seg")):
        sitk.WriteImage(image, str(source / f"{name}.nii.gz"))
    return SourceCase("case", (source / "dwi.nii.gz", source / "flair.nii.gz"), source / "seg.nii.gz", "case", "")


def test_images_on_other_grids_are_registered(source: Path, out: Path) -> None:
    case = flair_case(source)
    (one,) = convert(case, out, release(WITH_FLAIR), scheme=LabelScheme(LabelMap({0: 0, 1: 1}), {"lesion": (1,)}))
    assert one.channel == "FLAIR" and one.registration.ok
    assert one.registration.translation_mm == pytest.approx(6, abs=0.5)
    flair, dwi = image_of(out, 1), image_of(out, 0)
    assert geometry(flair) == geometry(dwi) and flair.GetPixelID() == sitk.sitkFloat32
    # Both show the same head, so they agree after registration.
    assert np.corrcoef(voxels(flair).ravel(), voxels(dwi).ravel())[0, 1] > 0.95
    pictures = one.reference, one.before, one.after
    assert {picture.shape for picture in pictures} == {(46, 40)} and {p.dtype for p in pictures} == {np.dtype("uint8")}
    apart = [np.abs(picture.astype(float) - one.reference).mean() for picture in (one.after, one.before)]
    assert apart[0] < 0.5 * apart[1]


def test_without_registration_headers_decide(source: Path, out: Path) -> None:
    case = flair_case(source)
    binary = LabelScheme(LabelMap({0: 0, 1: 1}), {"lesion": (1,)})
    (one,) = convert(case, out, release(WITH_FLAIR), scheme=binary, register=False)
    assert one.registration.ok and one.registration.translation_mm == 0
    assert "headers only" in one.registration.text
    np.testing.assert_array_equal(one.before, one.after)
    assert geometry(image_of(out, 1)) == geometry(image_of(out, 0))
    assert np.corrcoef(voxels(image_of(out, 1)).ravel(), voxels(image_of(out, 0)).ravel())[0, 1] < 0.94


def test_a_failed_registration_is_flagged(source: Path, out: Path) -> None:
    case = case_in(source)
    noise = np.random.default_rng(7).normal(100, 10, (30, 30, 30)).astype(np.float32)
    dwi = write(source / "dwi.nii.gz", noise[::-1, :, ::-1], axes((3, 3, 3)))
    flair = write(source / "flair.nii.gz", noise[:, ::-1], axes((2.9, 3, 3)))
    (one,) = convert(SourceCase("case", (dwi, flair), None, "case", ""), out, release(WITH_FLAIR))
    assert not one.registration.ok and "failed" in one.registration.text
    np.testing.assert_array_equal(one.before, one.after)
    assert case.label is not None


@pytest.mark.parametrize("name", ["imagesTr/case_0000.nii.gz", "imagesTr/case_0001.nii.gz", "labelsTr/case.nii.gz"])
def test_a_full_disk_is_an_error_that_names_the_file(source: Path, out: Path, name: str) -> None:
    """The first image is copied, the second compressed, the label written."""
    case = case_in(source)
    case.images[1].write_bytes(gzip.decompress(case.images[1].read_bytes()))
    (out / name).parent.mkdir(parents=True)
    (out / name).symlink_to("/dev/full")  # every write to it finds no space
    with pytest.raises(OSError, match="No space left on device") as error:
        convert(case, out)
    assert error.value.errno == errno.ENOSPC
    assert str(out / name) in str(error.value)


def test_dataset_json_with_regions_in_order() -> None:
    case = SourceCase("case", (Path("t1"), Path("t2")), Path("label"), "case", "")
    content = dataset_json(release(), CHANNELS, SCHEME, "Small", [case] * 12)
    assert content["channel_names"] == {"0": "T1", "1": "T2"} and "absent_channels" not in content
    assert list(content["labels"].items()) == [
        ("background", 0),
        ("whole tumor", [1, 2, 3]),
        ("tumor core", [2, 3]),
        ("enhancing tumor", [3]),
    ]
    assert content["regions_class_order"] == [1, 2, 3]
    assert (content["numTraining"], content["file_ending"], content["release"]) == (12, ".nii.gz", "Small")
    text = json.dumps(content)
    assert text.index("whole tumor") < text.index("tumor core") < text.index("enhancing tumor")


def test_dataset_json_with_plain_labels() -> None:
    case, scheme = (
        SourceCase("case", (Path("t2"),), None, "case", ""),
        LabelScheme(LabelMap({0: 0, 1: 1}), {"lesion": (1,)}),
    )
    plain = dataset_json(release(), CHANNELS[1:], scheme, "Small", [case])
    assert plain["labels"] == {"background": 0, "lesion": 1} and "regions_class_order" not in plain
    assert plain["channel_names"] == {"0": "T2"}
