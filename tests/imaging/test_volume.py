"""Files are read completely or rejected, and their grid is the one that SimpleITK, nnU-Net's reader, sees."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nifti_files import BRATS_AFFINE, axes, write
from volumes import OBLIQUE, SHAPE, image_values

from factorizer_nnunet.imaging.grid import geometry_difference
from factorizer_nnunet.imaging.labels import integer_labels
from factorizer_nnunet.imaging.volume import nifti_bytes, read_header, read_volume

SHEARED = OBLIQUE @ np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "int64", ">i2", ">f4"])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "A.NII.GZ"])
def test_voxels_come_as_they_are_stored(tmp_path: Path, dtype: str, name: str) -> None:
    values = image_values(dtype=dtype)
    header = nibabel.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    content = nibabel.Nifti1Image(values, OBLIQUE, header, dtype=dtype).to_bytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.values, values)
    assert volume.values.dtype == np.dtype(dtype)
    assert (volume.gzipped, volume.series, volume.repairs) == (name.lower().endswith("gz"), None, ())


@pytest.mark.parametrize("codes", [(1, 1), (0, 2), (2, 0), (2, 1), (0, 0)])
@pytest.mark.parametrize(
    "affine", [BRATS_AFFINE, OBLIQUE, axes((0.449, 0.449, 5.0), 12)], ids=["brats", "oblique", "flair"]
)
def test_the_grid_is_what_simpleitk_reads(tmp_path: Path, affine: np.ndarray, codes: tuple[int, int]) -> None:
    path = write(tmp_path / "a.nii.gz", image_values(), affine, codes=codes)
    image, grid = sitk.ReadImage(str(path)), read_volume(path).grid
    seen = (image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    assert (grid.size, grid.spacing, grid.origin, grid.direction) == seen
    assert grid.voxel_mm3 == pytest.approx(abs(np.linalg.det(affine[:3, :3])))


def test_scaled_values_are_scaled(tmp_path: Path) -> None:
    values = np.zeros(SHAPE, np.uint16)
    values[1, 2, 3] = 65535
    volume = read_volume(write(tmp_path / "a.nii.gz", values, slope=1 / 65535))
    assert volume.values[1, 2, 3] == pytest.approx(1, abs=1e-6) and volume.values[1, 2, 3] != 1
    assert volume.stored[1, 2, 3] == 65535
    labels = integer_labels(volume.values)
    assert labels[1, 2, 3] == 1 and labels.sum() == 1


def damaged(content: bytes) -> bytes:
    """One bit of the voxels is flipped, which only the checksum of the gzip stream reveals."""
    packed = bytearray(gzip.compress(content, compresslevel=0))
    packed[-20] ^= 1
    return bytes(packed)


@pytest.mark.parametrize(
    ("spoil", "name", "expected"),
    [
        (
            lambda c: gzip.compress(c)[:-20],
            "a.nii.gz",
            r"is a truncated or damaged gzip file \(.*\): download or copy it again",
        ),
        (lambda c: gzip.compress(c)[:-4], "a.nii.gz", "truncated or damaged gzip"),
        (lambda c: gzip.compress(c)[:15], "a.nii.gz", "truncated or damaged gzip"),
        (lambda c: gzip.compress(c) + b"appended", "a.nii.gz", "truncated or damaged gzip"),
        (damaged, "a.nii.gz", "truncated or damaged gzip"),
        (
            lambda c: gzip.compress(c[:-7]),
            "a.nii.gz",
            "is truncated: 1305 bytes, 1312 according to its header: download or copy it again",
        ),
        (lambda c: c[:-7], "a.nii", "is truncated"),
        (lambda c: c[:100], "a.nii", "is truncated: 100 bytes, shorter than a header: download or copy it again"),
        (lambda _: b"", "a.nii.gz", "is empty: download or copy it again"),
        (
            lambda _: b"<!DOCTYPE html>\n<html><title>Log in</title></html>" * 20,
            "a.nii.gz",
            r"is not a NIfTI file but text that starts with '<!DOCTYPE html> <html><t': download or copy it again",
        ),
        (
            lambda _: b"no image at all, " * 50,
            "a.nii",
            "is not a NIfTI file but text that starts with 'no image at all",
        ),
        (lambda _: gzip.compress(b"no image at all, " * 50), "a.nii.gz", "is not a NIfTI file but text"),
        (lambda _: b"ok", "a.nii", "is not a NIfTI file but text that starts with 'ok'"),
        (lambda _: b"PK\x03\x04" + bytes(500), "a.nii.gz", "is not a NIfTI file$"),
        (
            lambda _: nibabel.Nifti2Image(image_values(), OBLIQUE).to_bytes(),
            "a.nii",
            "is a NIfTI-2 file, expected NIfTI-1",
        ),
        (lambda c: c[:344] + b"what" + c[348:], "a.nii", "cannot be read as NIfTI"),
        (lambda c: c[:70] + struct.pack("<hh", 128, 24) + c[74:], "a.nii", "expected one real number per voxel"),
        (lambda c: c[:70] + struct.pack("<hh", 999, 16) + c[74:], "a.nii", "cannot be read as NIfTI"),
        (lambda c: c[:40] + struct.pack("<4h", 2, 8, 10, 1) + c[48:], "a.nii", "neither a 3D image nor a series"),
        (lambda c: c[:42] + struct.pack("<h", -8) + c[44:], "a.nii", "neither a 3D image nor a series"),
        (lambda c: c[:42] + struct.pack("<3h", *[32767] * 3) + c[48:], "a.nii", "is truncated"),
        (lambda c: c[:80] + struct.pack("<3f", 1, 0, 3) + c[92:], "a.nii", "invalid voxel size .*: 1 × 0 × 3 mm"),
        (lambda c: c[:280] + bytes(48) + c[328:], "a.nii", "singular or non-finite affine"),
        (lambda c: c[:280] + struct.pack("<f", np.nan) + c[284:], "a.nii", "NaN or infinity in the position"),
        (lambda c: c[:112] + struct.pack("<2f", 2, np.nan) + c[120:], "a.nii", "cannot be read as NIfTI"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, spoil: Callable[[bytes], bytes], name: str, expected: str) -> None:
    path = tmp_path / name
    path.write_bytes(spoil(nibabel.Nifti1Image(image_values(), OBLIQUE).to_bytes()))
    with pytest.raises(OSError, match=expected):
        read_volume(path)


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be read: No such file"):
        read_volume(tmp_path / "a.nii")


def test_concatenated_streams_are_read_completely(tmp_path: Path) -> None:
    """As written by block-wise compressors."""
    content = nibabel.Nifti1Image(image_values(), OBLIQUE).to_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"".join(gzip.compress(content[start : start + 500]) for start in range(0, len(content), 500)))
    np.testing.assert_array_equal(read_volume(path).values, image_values())


def test_names_may_be_wrong_about_compression(tmp_path: Path) -> None:
    content = nibabel.Nifti1Image(image_values(), OBLIQUE).to_bytes()
    (tmp_path / "a.nii.gz").write_bytes(content)
    (tmp_path / "b.nii").write_bytes(gzip.compress(content))
    for name, gzipped in (("a.nii.gz", False), ("b.nii", True)):
        volume = read_volume(tmp_path / name)
        assert volume.gzipped == gzipped
        np.testing.assert_array_equal(volume.values, image_values())


def test_single_axes_are_dropped_and_series_kept(tmp_path: Path) -> None:
    squeezed = read_volume(write(tmp_path / "a.nii.gz", image_values(shape=(*SHAPE, 1)), OBLIQUE))
    assert squeezed.series is None and squeezed.grid.size == SHAPE
    assert squeezed.repairs == ("shape (8, 10, 6, 1) is read as (8, 10, 6)",)
    values = image_values(shape=(*SHAPE, 1, 4))
    series = read_volume(write(tmp_path / "b.nii.gz", values, OBLIQUE))
    assert series.series == 4 and series.grid == squeezed.grid
    np.testing.assert_array_equal(series.part(2).values, values[..., 0, 2])
    assert series.part(2).series is None
    with pytest.raises(OSError, match="contains 4 images, expected a series with at least 5"):
        series.part(4)


def test_skewed_axes_are_straightened(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", image_values(), SHEARED, codes=(0, 2))
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(path))
    volume = read_volume(path)
    assert len(volume.repairs) == 1 and "not at right angles" in volume.repairs[0]
    matrix = np.reshape(volume.grid.direction, (3, 3))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-6)
    assert (int(volume.header["qform_code"]), int(volume.header["sform_code"])) == (2, 2)
    np.testing.assert_allclose(volume.header.get_qform(), volume.header.get_sform(), atol=1e-4)
    # The corners move by at most the reported distance, measured by nibabel's affine against the repaired one.
    corners = np.array(np.meshgrid(*((0, n - 1) for n in SHAPE))).reshape(3, -1)
    moved = np.linalg.norm(nibabel.affines.apply_affine(SHEARED - volume.header.get_sform(), corners.T), axis=1)
    assert f"up to {moved.max():.2f}"[:-1] in volume.repairs[0]
    np.testing.assert_allclose(volume.grid.spacing, np.linalg.norm(SHEARED[:3, :3], axis=0), rtol=1e-5)


@pytest.mark.parametrize("codes", [(1, 1), (0, 2), (0, 0)])
def test_written_geometry_is_that_of_the_header_bit_for_bit(tmp_path: Path, codes: tuple[int, int]) -> None:
    source = write(tmp_path / "a.nii.gz", image_values(), OBLIQUE, codes=codes)
    volume = read_volume(source)
    labels = np.ones(SHAPE, np.uint8)
    (tmp_path / "b.nii.gz").write_bytes(nifti_bytes(labels, volume.header))
    written = read_volume(tmp_path / "b.nii.gz")
    assert written.grid == volume.grid
    assert written.values.dtype == np.uint8 and written.values.all()
    old, new = nibabel.load(source).header, nibabel.load(tmp_path / "b.nii.gz").header
    for name in ("quatern_b", "qoffset_z", "srow_x", "srow_y", "srow_z", "qform_code", "sform_code", "xyzt_units"):
        np.testing.assert_array_equal(old[name], new[name])
    assert nifti_bytes(labels, volume.header) == nifti_bytes(labels, read_header(source))


def test_written_scale_is_what_readers_use(tmp_path: Path) -> None:
    stored = image_values()
    header = read_header(write(tmp_path / "a.nii.gz", stored, OBLIQUE))
    (tmp_path / "b.nii.gz").write_bytes(nifti_bytes(stored, header, slope=0.5, intercept=-3))
    seen = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "b.nii.gz"))).T
    np.testing.assert_allclose(seen, stored * 0.5 - 3)


def test_geometry_is_compared_within_a_tolerance(tmp_path: Path) -> None:
    grid = read_volume(write(tmp_path / "a.nii.gz", image_values(), OBLIQUE)).grid
    for change, expected in ((5e-2, None), (2e-1, "origin")):  # mm; voxels of 1 × 1.5 × 3 mm, so 5 % is 0.05 to 0.15
        moved = OBLIQUE.copy()
        moved[1, 3] += change
        other = read_volume(write(tmp_path / "b.nii.gz", image_values(), moved)).grid
        difference = geometry_difference(other, grid)
        assert difference is None if expected is None else difference is not None and difference.startswith(expected)
    smaller = read_volume(write(tmp_path / "c.nii.gz", image_values(shape=(8, 10, 5)), OBLIQUE)).grid
    assert geometry_difference(smaller, grid) == "shape (8, 10, 5) differs from (8, 10, 6)"
    finer = read_volume(write(tmp_path / "d.nii.gz", image_values(), axes((1, 1.5, 2.9), 20))).grid
    assert str(geometry_difference(finer, grid)).startswith("spacing (1.0, 1.5, 2.9)")
