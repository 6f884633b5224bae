"""A segmentation belongs to its image: old ones are not taken for new ones, and nothing is predicted from NaN."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from tiny_models import CASES, run_predict, write_image

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.prediction_record import RECORDS
from factorizer_nnunet.prediction import pipeline, sliding_window
from factorizer_nnunet.prediction.claims import Claims


def command(root: Path, model: Path, *options: str) -> list[str]:
    folders = ["-i", str(root / "images"), "-o", str(root / "out"), "-m", str(model), "-f", "0"]
    return ["predict", *folders, "-device", "cpu", "--disable_tta", "-npp", "0", "-nps", "0", *options]


def edit(segmentation: Path) -> bytes:
    image = SimpleITK.ReadImage(str(segmentation))
    array = SimpleITK.GetArrayFromImage(image)
    array[0] = 2 - array[0]
    edited = SimpleITK.GetImageFromArray(array)
    edited.CopyInformation(image)
    SimpleITK.WriteImage(edited, str(segmentation))
    return segmentation.read_bytes()


def test_another_image_of_the_same_name_is_predicted(
    root: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(root, model)) == 0
    out = root / "out"
    printed = capsys.readouterr()
    assert printed.out == f"predicted: 3, complete before: 0, failed: 0; in {out}\n", "nnU-Net's own lines are left out"
    assert "FutureWarning" not in printed.err
    old = {case: (out / f"{case}.nii.gz").read_bytes() for case in CASES}
    write_image(root / "images" / "b_0001.nii.gz", 77)
    assert cli.main(command(root, model)) == 0
    printed = capsys.readouterr().out
    assert "predicted: 1, complete before: 2" in printed
    assert "b: predicted from other images: image 1 (changed); kept as b.nii.gz.outdated-1" in printed
    assert (out / "b.nii.gz.outdated-1").read_bytes() == old["b"] != (out / "b.nii.gz").read_bytes()

    moved = root / "moved"
    shutil.move(root / "images", moved)  # the same images elsewhere, with other times
    for file in moved.iterdir():
        file.touch()
    assert run_predict(root, model, images=moved, use_mirroring=False).skipped == list(CASES)


def test_a_corrected_segmentation_is_kept_and_named(
    root: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(command(root, model))
    corrected = edit(root / "out" / "c.nii.gz")
    capsys.readouterr()
    assert cli.main(command(root, model)) == 0
    assert "kept: c: c.nii.gz was changed after it was written; to predict the case again" in capsys.readouterr().out
    write_image(root / "images" / "c_0000.nii.gz", 78)
    assert cli.main(command(root, model)) == 1
    assert "failed: c: c.nii.gz was changed after it was written, and the images are others" in capsys.readouterr().err
    assert (root / "out" / "c.nii.gz").read_bytes() == corrected


def with_voxel(file: Path, value: float) -> None:
    image = SimpleITK.ReadImage(str(file))
    array = SimpleITK.GetArrayFromImage(image).astype(np.float64)
    array[3, 5, 7] = value
    changed = SimpleITK.GetImageFromArray(array)
    changed.SetSpacing(image.GetSpacing())
    SimpleITK.WriteImage(changed, str(file))


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e200])
def test_images_that_are_not_finite_fail(root: Path, model: Path, value: float) -> None:
    with_voxel(root / "images" / "a_0001.nii.gz", value)
    outcome = run_predict(root, model, use_mirroring=False)
    assert outcome.predicted == ["b", "c"]
    assert re.search("1 voxels? (that )?(is|are) NaN or infinite", outcome.failed["a"])
    assert not list((root / "out").glob("a.*"))


def as_rgb(image: SimpleITK.Image) -> SimpleITK.Image:
    grey = SimpleITK.Cast(image, SimpleITK.sitkUInt8)
    return SimpleITK.Compose([grey, grey, grey])


def as_complex(image: SimpleITK.Image) -> SimpleITK.Image:
    return SimpleITK.Cast(SimpleITK.Cast(image, SimpleITK.sitkFloat32), SimpleITK.sitkComplexFloat32)


def as_4d(image: SimpleITK.Image) -> SimpleITK.Image:
    return SimpleITK.JoinSeries([image, image, image])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (as_rgb, "a_0001.nii.gz has vector or RGB voxels"),
        (as_complex, "a_0001.nii.gz has complex voxels"),
        (as_4d, "a_0001.nii.gz is 4D, with 3 volumes. Save one volume"),
    ],
)
def test_files_that_are_not_one_volume_are_named(
    root: Path, model: Path, change: Callable[[SimpleITK.Image], SimpleITK.Image], message: str
) -> None:
    file = root / "images" / "a_0001.nii.gz"
    SimpleITK.WriteImage(change(SimpleITK.ReadImage(str(file))), str(file))
    outcome = run_predict(root, model, use_mirroring=False)
    assert outcome.predicted == ["b", "c"] and message in outcome.failed["a"]


def test_voxels_and_extents_far_from_the_trainings_are_a_warning(root: Path, model: Path) -> None:
    content = {"spacings": [[3.2, 1.7, 1.0], [3.0, 1.5, 1.0]], "shapes_after_crop": [[7, 17, 20], [8, 17, 22]]}
    (model / "dataset_fingerprint.json").write_text(json.dumps(content))
    assert run_predict(root, model, use_mirroring=False).warnings == {}
    for file in (root / "images").glob("b_*"):
        change_header(file, Spacing=(1.0, 1.7, 9.6))
    found = run_predict(root, model, out=root / "other", use_mirroring=False).warnings
    assert list(found) == ["b"]
    assert "voxels of 9.6 × 1.7 × 1 mm, in the training 3 to 3.2 × 1.5 to 1.7 × 1 mm" in found["b"]
    assert "; an extent without empty borders of 67.2 ×" in found["b"]


def test_axes_that_lead_elsewhere_than_in_the_training_are_a_warning(root: Path, model: Path) -> None:
    (model / "dataset_fingerprint.json").write_text(json.dumps({"factorizer_orientations": ["LPS", "RAS"]}))
    for file in (root / "images").glob("a_*"):
        change_header(file, Direction=(0, 0, 1, 1, 0, 0, 0, 1, 0))
    for file in (root / "images").glob("b_*"):
        change_header(file, Direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    found = run_predict(root, model, use_mirroring=False).warnings
    assert list(found) == ["a"] and "its axes lead to PSL, those of the training's images to LPS or RAS" in found["a"]


def test_single_voxels_that_outshine_all_others_are_a_warning(root: Path, model: Path) -> None:
    file = root / "images" / "c_0001.nii.gz"
    image = SimpleITK.ReadImage(str(file))
    image[3, 3, 3] = 1e7
    SimpleITK.WriteImage(image, str(file))
    found = run_predict(root, model, use_mirroring=False).warnings
    assert list(found) == ["c"] and "channel 1 (T2): few voxels are so much brighter" in found["c"]
    again = run_predict(root, model, use_mirroring=False)
    assert again.skipped == ["a", "b", "c"] and again.warnings == found


def test_images_are_not_the_folder_of_predictions(root: Path, model: Path) -> None:
    with pytest.raises(UserError, match="is the folder of the images: name another"):
        run_predict(root, model, out=root / "images" / ".." / "images")


@pytest.mark.parametrize("millimetres", [0.0, np.nan, -1.0])
def test_a_voxel_size_that_the_header_lacks_is_named(root: Path, model: Path, millimetres: float) -> None:
    for file in sorted((root / "images").glob("a_*")):
        content = bytearray(gzip.decompress(file.read_bytes()))
        content[84:88] = np.array(millimetres, "<f4").tobytes()  # pixdim[2]; ITK takes 1 mm
        file.write_bytes(gzip.compress(bytes(content)))
    outcome = run_predict(root, model, use_mirroring=False)
    assert outcome.predicted == ["b", "c"]
    assert re.search(r"a_0000.nii.gz has a header with voxels of 1 × (0|nan|-1) × .* mm", outcome.failed["a"])


@pytest.mark.parametrize(
    ("offset", "number", "message"),
    [
        (44, -17, "has a header with 20 × -17 × 7 voxels. Correct its dim"),
        (44, 0, "has a header with 20 × 0 × 7 voxels. Correct its dim"),
        (40, 0, "has a header with no voxels. Correct its dim"),
        (70, 0, r"has a header with voxels of an unknown type \(0\)"),
        (70, 777, r"has a header with voxels of an unknown type \(777\)"),
    ],
)
def test_a_header_that_describes_no_image_is_named(
    root: Path, model: Path, offset: int, number: int, message: str
) -> None:
    file = root / "images" / "a_0000.nii.gz"
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[offset : offset + 2] = np.array(number, "<i2").tobytes()
    file.write_bytes(gzip.compress(bytes(content)))
    outcome = run_predict(root, model, use_mirroring=False)
    assert outcome.predicted == ["b", "c"]
    assert re.search(f"a_0000.nii.gz {message}", outcome.failed["a"])


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def as_plain_nifti(file: Path) -> None:
    file.write_bytes(gzip.decompress(file.read_bytes()))


def as_nifti2(file: Path) -> None:
    image = nibabel.load(file)
    nibabel.save(nibabel.Nifti2Image(np.asarray(image.dataobj), image.affine), file)


def as_sheared(file: Path) -> None:
    image = nibabel.load(file)
    affine = image.affine @ [[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    sheared = nibabel.Nifti1Image(np.asarray(image.dataobj), affine)
    sheared.set_qform(None, 0)
    nibabel.save(sheared, file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (as_folder, "a_0000.nii.gz is a folder"),
        (as_plain_nifti, "a_0000.nii.gz is not compressed, although it ends with .gz: give it the ending of"),
        (as_nifti2, "SimpleITK cannot read it (Unable to determine ImageIO reader for .*a_0000.nii.gz.*Save it again"),
        (as_sheared, "SimpleITK cannot read it (.*rthonormal.*Save it again .* with axes at right angles"),
    ],
)
def test_files_that_simpleitk_does_not_read_are_named(
    root: Path, model: Path, change: Callable[[Path], None], message: str
) -> None:
    change(root / "images" / "a_0000.nii.gz")
    outcome = run_predict(root, model, use_mirroring=False)
    assert outcome.predicted == ["b", "c"]
    assert re.search(message.replace("(", r"\("), outcome.failed["a"]), outcome.failed["a"]


@pytest.mark.parametrize("start", [-5, 0, 348])
def test_voxels_within_the_header_are_named(root: Path, model: Path, start: float) -> None:
    file = root / "images" / "a_0000.nii.gz"
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[108:112] = np.array(start, "<f4").tobytes()
    file.write_bytes(gzip.compress(bytes(content)))
    message = run_predict(root, model, use_mirroring=False).failed["a"]
    assert f"lets its voxels begin at byte {start}; they cannot before 352" in message


def test_2d_images_given_to_a_3d_model_fail(root: Path, model: Path) -> None:
    for file in sorted((root / "images").glob("a_*")):
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(file))[:, :, 3], str(file))
    outcome = run_predict(root, model, use_mirroring=False)
    assert outcome.predicted == ["b", "c"] and "it is a single slice (a 2D image)" in outcome.failed["a"]


def test_a_constant_channel_is_named(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = root / "images" / "b_0001.nii.gz"
    image = SimpleITK.ReadImage(str(file))
    SimpleITK.WriteImage(image * 0 + 37, str(file))
    assert cli.main(command(root, model)) == 0
    printed = capsys.readouterr()
    assert "predicted: 3, complete before: 0, failed: 0, with a warning: 1;" in printed.out
    assert [line for line in printed.err.splitlines() if line.startswith("warning")] == [
        "warning: b: channel 1 (T2) is constant: every voxel is 37"
    ]


@pytest.mark.parametrize("scale", [1e-12, 1e-9, 1e20])
def test_values_of_which_the_normalisation_leaves_nothing_fail(root: Path, model: Path, scale: float) -> None:
    file = root / "images" / "a_0001.nii.gz"
    image = SimpleITK.ReadImage(str(file))
    scaled = SimpleITK.GetImageFromArray(SimpleITK.GetArrayFromImage(image) * np.float32(scale))
    scaled.CopyInformation(image)
    SimpleITK.WriteImage(scaled, str(file))
    outcome = run_predict(root, model, use_mirroring=False)
    assert outcome.predicted == ["b", "c"]
    assert re.search(r"channel 1 \(T2\) has values from .* ZScoreNormalization leaves nothing", outcome.failed["a"])


def test_a_slice_given_to_a_3d_model_is_a_warning(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for channel in (0, 1):
        file = root / "images" / f"b_{channel:04d}.nii.gz"
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(file))[:, :, :1], str(file))
    assert cli.main(command(root, model)) == 0
    [warning] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warning.startswith("warning: b: it has ") and "most is padding" in warning


def test_an_empty_file_is_named(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "images" / "b_0001.nii.gz").write_bytes(b"")
    assert cli.main(command(root, model)) == 1
    assert "b_0001.nii.gz is empty" in "".join(capsys.readouterr())


def test_an_output_that_is_not_finite_fails(root: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As half precision gives on a GPU: nnU-Net notices infinity, but not NaN."""

    def overflowed(self: object, tile: torch.Tensor, sums: object, watcher: object = None) -> torch.Tensor:
        logits = torch.zeros(3, *tile.shape[1:], dtype=torch.half)
        logits[1] = torch.tensor(6e4, dtype=torch.half) * 2 - torch.inf
        return logits

    monkeypatch.setattr(sliding_window._Network, "logits", overflowed)
    outcome = run_predict(root, model)
    assert list(outcome.failed) == list(CASES) and not list((root / "out").glob("*.nii.gz"))
    assert "the output of the network contains NaN or infinity" in outcome.failed["a"]


def test_weights_that_are_not_finite_are_refused(root: Path, model: Path) -> None:
    file = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    name = next(name for name, weight in content["network_weights"].items() if weight.ndim > 1)
    content["network_weights"][name].view(-1)[2] = np.nan
    torch.save(content, file)
    with pytest.raises(UserError, match=rf"{file}: weight {name} contains NaN or infinity"):
        run_predict(root, model)
    assert not (root / "out").exists()


def test_an_image_of_other_channels_is_told_so(root: Path, model: Path) -> None:
    volume = np.zeros((2, 7, 17, 20), np.float32)
    SimpleITK.WriteImage(SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(one) for one in volume]), root / "t.nii.gz")
    shutil.move(root / "t.nii.gz", root / "images" / "b_0001.nii.gz")
    outcome = run_predict(root, model, use_mirroring=False)
    assert outcome.predicted == ["a", "c"]
    assert list(outcome.failed) == ["b"]


def change_header(file: Path, **values: object) -> None:
    image = SimpleITK.ReadImage(str(file))
    for name, value in values.items():
        getattr(image, f"Set{name}")(value)
    SimpleITK.WriteImage(image, str(file))


@pytest.mark.parametrize("size", [5000.0, 0.001])
def test_a_voxel_size_that_cannot_be_right_is_refused(root: Path, model: Path, size: float) -> None:
    for channel in (0, 1):
        change_header(root / "images" / f"a_000{channel}.nii.gz", Spacing=(size, 1.7, 3.2))
    outcome = run_predict(root, model, use_mirroring=False)
    assert "Correct the header's spacing" in outcome.failed["a"] and outcome.predicted == ["b", "c"]


def test_channels_on_different_grids_are_refused(root: Path, model: Path) -> None:
    images = root / "images"
    change_header(images / "a_0001.nii.gz", Origin=(0.0, 47.0, 0.0))
    volume = SimpleITK.ReadImage(str(images / "b_0001.nii.gz"))
    SimpleITK.WriteImage(volume[:-2], str(images / "b_0001.nii.gz"))
    change_header(images / "c_0001.nii.gz", Origin=(0.0, 0.002, 0.0))  # rounding, far below a voxel
    outcome = run_predict(root, model, use_mirroring=False)
    assert re.search(r"a_0001\.nii\.gz: origin .* differs from .* of a_0000\.nii\.gz\. Resample", outcome.failed["a"])
    assert re.search(r"b_0001\.nii\.gz: shape .* differs from .* of b_0000\.nii\.gz\. Resample", outcome.failed["b"])
    assert outcome.predicted == ["c"]


def test_what_is_passed_over_is_named(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = root / "images"
    (images / "b_0000.nii.gz").rename(images / "b_0000.NII.GZ")
    (images / "notes.txt").touch()
    (images / "more").mkdir()
    (images / "d_0000.nrrd").touch()
    assert cli.main(command(root, model)) == 0
    printed = capsys.readouterr().out
    assert "predicted: 3," in printed and f"passed over in {images}: d_0000.nrrd, more, notes.txt" in printed
    assert (root / "out" / "b.nii.gz").is_file()


def test_parts_are_nnunets(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--continue_prediction", "--verbose", "--disable_progress_bar", "-step_size", "0.5"]
    assert cli.main(command(root, model, "-num_parts", "2", "-part_id", "1", *options)) == 0
    assert sorted(path.name for path in (root / "out").glob("*.nii.gz")) == ["b.nii.gz"]
    assert cli.main(command(root, model, "-num_parts", "2", "-part_id", "0")) == 0
    assert len(list((root / "out").glob("*.nii.gz"))) == 3
    assert cli.main(command(root, model, "-num_parts", "2", "-part_id", "2")) == 2
    assert "-part_id 2 and -num_parts 2" in capsys.readouterr().err


def test_memory_empty_tiles_and_stage_times_are_options(
    root: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(root, model, "--memory", "0")) == 2
    assert "--memory 0 must be above 0, in GB" in capsys.readouterr().err
    assert not (root / "out").exists()
    assert cli.main(command(root, model, "--memory", "0.3")) == 2
    assert "--memory 0.3: PyTorch and nnU-Net alone take 0.5 GB" in capsys.readouterr().err
    assert cli.main(command(root, model, "--memory", "0.50001")) == 1
    printed = "".join(capsys.readouterr())
    assert "GB at the model's spacing" in printed and "it may take 0.5 GB" in printed
    assert cli.main(command(root, model, "--sums-on-disk", str(root / "missing"))) == 2
    assert "missing: this is not a folder" in capsys.readouterr().err
    options = ("--memory", "64", "--skip-empty-tiles", "--sums-on-disk", str(root), "--verbose")
    assert cli.main(command(root, model, *options)) == 0
    assert "a: reading and preprocessing" in "".join(capsys.readouterr())


def test_a_case_of_another_process_is_waited_for(root: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "out" / RECORDS).mkdir(parents=True)
    others = Claims(root / "out")
    assert others.take("a")
    monkeypatch.setattr(pipeline.time, "sleep", lambda seconds: others.release("a"))
    record = root / "out" / "predict_from_raw_data_args.json"
    record.write_text(json.dumps({"checkpoints": {"0": "of another model"}}))
    with pytest.raises(UserError, match="of another model or with other settings"):
        run_predict(root, model, use_mirroring=False)
    record.unlink()
    others.release("a")
    run_predict(root, model, out=root / "alone", use_mirroring=False)
    shutil.copytree(root / "alone", root / "out", dirs_exist_ok=True)
    (root / "out" / "a.nii.gz").unlink()
    assert others.take("a")
    outcome = run_predict(root, model, use_mirroring=False)
    assert (outcome.predicted, outcome.skipped) == (["a"], ["b", "c"]), "taken over when it was given up"
    assert not list((root / "out" / RECORDS).glob("*.lock"))


@pytest.mark.slow
def test_two_commands_share_a_folder(root: Path, model: Path) -> None:
    run_predict(root, model, out=root / "alone", use_mirroring=False)
    program = [sys.executable, "-m", "factorizer_nnunet", *command(root, model)]
    processes = [subprocess.Popen(program, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = "".join(process.communicate(timeout=300)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    predicted = [int(number) for number in re.findall(r"predicted: (\d), complete before", printed)]
    assert sum(predicted) == len(CASES), "each case once"
    for case in CASES:
        assert (root / "out" / f"{case}.nii.gz").read_bytes() == (root / "alone" / f"{case}.nii.gz").read_bytes()


def test_a_truncated_voxel_block_is_noticed(root: Path, model: Path) -> None:
    file = root / "images" / "a_0000.nii.gz"
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-400]))  # a valid gzip file
    assert "is truncated" in run_predict(root, model, use_mirroring=False).failed["a"]
