"""The runner of ONNX networks against nnU-Net's own functions and our predictions."""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.preprocessing.normalization import default_normalization_schemes
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from scipy.ndimage import binary_fill_holes
from tiny_models import (
    CASES,
    FACTORIZER,
    STOCK,
    plans,
    run_predict,
    train_with_files,
    write_cascade,
    write_image,
    write_model,
)

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.exporting import run_model
from factorizer_nnunet.exporting.onnx_files import check_onnx
from factorizer_nnunet.exporting.runner_settings import runner_settings
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL
from factorizer_nnunet.prediction.channel_grids import channel_grid_problem
from factorizer_nnunet.prediction.model import load_model

OPTIONS = {"order": 3, "order_z": 0, "force_separate_z": None, "separate_z_anisotropy_threshold": 3}


@pytest.mark.parametrize(
    ("source", "target", "source_mm", "target_mm", "changes"),
    [
        ((9, 11, 13), (14, 7, 13), (1, 1, 1), (0.7, 1.4, 1), {}),
        ((9, 11, 13), (9, 15, 10), (5, 1, 1), (5, 0.8, 1.3), {}),  # thick slices that stay
        ((6, 11, 13), (15, 15, 10), (5, 1, 1), (2, 0.8, 1.3), {}),
        ((11, 6, 13), (15, 9, 10), (1, 5, 1), (0.8, 3, 1.3), {"order": 1}),
        ((11, 6, 13), (15, 9, 10), (1, 5, 1), (0.8, 3, 1.3), {"order": 1, "order_z": 1}),
        ((9, 11, 13), (14, 7, 13), (1, 4, 4), (0.7, 6, 4), {}),  # two thick axes are none
        ((9, 11, 13), (14, 7, 13), (5, 1, 1), (3, 1.6, 1), {"force_separate_z": False, "order": 1}),
        ((2, 1, 3), (5, 4, 3), (1, 1, 1), (0.4, 0.25, 1), {}),
    ],
)
def test_resampling_is_nnunets(source: tuple, target: tuple, source_mm: tuple, target_mm: tuple, changes: dict) -> None:
    options = {**OPTIONS, **changes}
    volume = np.random.default_rng(0).normal(size=source).astype(np.float32)
    expected = resample_data_or_seg_to_shape(volume[None], target, source_mm, target_mm, **options)[0]
    found = run_model.apply_maps(volume, run_model.axis_maps(source, target, source_mm, target_mm, options))
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_holes_are_scipys() -> None:
    for seed in range(5):
        mask = np.random.default_rng(seed).random((9, 12, 10)) < 0.72
        np.testing.assert_array_equal(run_model.fill_holes(mask), binary_fill_holes(mask))
    spiral = np.zeros((1, 7, 7), bool)  # the way out has many turns
    spiral[0, 1, 1:] = spiral[0, 1:6, 1] = spiral[0, 5, 1:6] = spiral[0, 3:6, 5] = spiral[0, 3, 3:6] = True
    np.testing.assert_array_equal(run_model.fill_holes(spiral), binary_fill_holes(spiral))


@pytest.mark.parametrize(("shape", "patch", "step"), [((20, 31, 16), (8, 16, 16), 0.5), ((40, 9), (7, 9), 0.3)])
def test_tiles_and_their_weights_are_nnunets(shape: tuple, patch: tuple, step: float) -> None:
    starts = compute_steps_for_sliding_window(shape, patch, step)
    corners = [tuple(part.start for part in tile) for tile in run_model.tiles(shape, patch, step)]
    assert corners == list(itertools.product(*starts))
    expected = compute_gaussian(patch, 1 / 8, 10, device=torch.device("cpu")).float().numpy()
    np.testing.assert_allclose(run_model.tile_weights(patch), expected, rtol=2e-3)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("scheme", ["ZScore", "CT", "RescaleTo01", "No", "RGBTo01"])
def test_normalisation_is_nnunets(scheme: str, mask: bool) -> None:
    properties = {"mean": 3.0, "std": 2.0, "percentile_00_5": 1.0, "percentile_99_5": 150.0}
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 6)).astype(np.float32)
    inside = image > 60
    normalizer = getattr(default_normalization_schemes, f"{scheme}Normalization")(mask, properties)
    expected = normalizer.run(image.copy(), np.where(inside, 0, -1))
    run_model.normalize(image, inside, {"scheme": f"{scheme}Normalization", "mask": mask, "properties": properties})
    np.testing.assert_allclose(image, expected, atol=1e-5)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64, np.uint16])
def test_nifti_is_read_and_written_as_by_simpleitk(tmp_path: Path, kind: type, ending: str) -> None:
    array = np.random.default_rng(0).integers(0, 200, (3, 4, 5)).astype(kind)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((0.5, 1.25, 3))
    image.SetOrigin((10, -20, 30))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(tmp_path / f"image{ending}"))
    found = run_model.read_nifti(tmp_path / f"image{ending}")
    np.testing.assert_array_equal(found.values, array)
    assert found.spacing == pytest.approx((3, 1.25, 0.5))
    labels = (array > 100).astype(np.uint8 if kind is np.uint8 else np.uint16)
    run_model.write_nifti(tmp_path / f"labels{ending}", labels, found.header)
    written = SimpleITK.ReadImage(str(tmp_path / f"labels{ending}"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(written), labels)
    for of in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(written, of)(), getattr(image, of)(), atol=1e-6)


def test_scaled_and_damaged_files(tmp_path: Path) -> None:
    file = tmp_path / "image.nii"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4)), str(file))
    content = bytearray(file.read_bytes())
    content[112:120] = np.array([2, -1], "<f4").tobytes()
    file.write_bytes(content)
    expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
    np.testing.assert_allclose(run_model.read_nifti(file).values, expected)
    for damaged, message in (
        (content[:-4], "is truncated"),
        (b"\x00" * 400, "is not a NIfTI-1 file"),
        (content[:42] + b"\0\0" + content[44:], "must contain one volume"),
        (content[:108] + b"\0\0\0\0" + content[112:], "its voxels begin at byte 0"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(run_model.ModelError, match=message):
            run_model.read_nifti(file)


def grids() -> dict[str, np.ndarray]:
    """Affine matrices: one with oblique axes, and what is done to it."""
    angle = np.deg2rad(30)
    turn, tilt = np.eye(4), np.eye(4)
    turn[:2, :2] = tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    first = tilt @ turn @ np.diag([1, 1.25, -3, 1])  # left-handed
    first[:3, 3] = 10, -20, 30
    return {
        "same": first,
        "moved a little": first + np.outer([0.03, 0, 0, 0], [0, 0, 0, 1]),
        "moved": first + np.outer([0, 0, 0.6, 0], [0, 0, 0, 1]),
        "turned": turn @ first,
        "mirrored": first @ np.diag([-1, 1, 1, 1]),
        "larger": first @ np.diag([1.0001, 1, 1, 1]),
    }


def write_on_grid(file: Path, qform: np.ndarray, sform: np.ndarray, codes: tuple[int, int]) -> None:
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4))
    image.set_qform(qform, codes[0])
    image.set_sform(sform, codes[1])
    nibabel.save(image, file)


@pytest.mark.parametrize("changed", ["both", "qform", "sform"])
@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1), (0, 0), (1, 2), (2, 1), (0, 4)])
def test_channels_on_different_grids_are_refused_as_by_predict(
    tmp_path: Path, codes: tuple[int, int], changed: str
) -> None:
    files = [tmp_path / f"a_{channel:04d}.nii" for channel in range(2)]
    first = grids()["same"]
    write_on_grid(files[0], first, first, codes)
    for name, other in grids().items():
        if name == "mirrored" and changed != "both":
            continue  # forms that contradict each other about left and right: ITK mixes them
        write_on_grid(files[1], first if changed == "sform" else other, first if changed == "qform" else other, codes)
        if channel_grid_problem(files) is None:
            run_model.read_case(files)
        else:
            message = "voxel size" if name == "larger" else "its voxels lie up to"
            with pytest.raises(run_model.ModelError, match=f"a_0001.nii: {message} .* of a_0000.nii. Resample"):
                run_model.read_case(files)


def test_places_of_voxels_are_those_of_the_form_that_itk_reads(tmp_path: Path) -> None:
    file, (qform, sform) = tmp_path / "a.nii", [grids()[name] for name in ("moved", "turned")]
    for codes in ((1, 1), (1, 0), (0, 1), (1, 2), (2, 1), (0, 4)):
        write_on_grid(file, qform, sform, codes)
        expected = sform if codes[1] == 1 or codes[0] == 0 else qform
        found = run_model.affine_of(run_model.read_nifti(file).header)
        np.testing.assert_allclose(found, expected[:3], atol=1e-5)
        origin = SimpleITK.ReadImage(str(file)).GetOrigin()
        np.testing.assert_allclose(np.multiply(origin, (-1, -1, 1)), found[:, 3], atol=1e-4)


class TorchSession:
    """The network in place of onnxruntime, so that everything around it is compared without an export."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network.eval()

    def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.inference_mode():
            return [self.network(torch.from_numpy(inputs["image"])).numpy()]


def by_runner(model: Path, images: Path, mirror: bool = True) -> dict[str, np.ndarray]:
    """Labels of all cases."""
    loaded = load_model(model, None, CHECKPOINT_FINAL)
    check_onnx(loaded)
    settings = json.loads(json.dumps(runner_settings(loaded)))
    networks = [TorchSession(loaded.network)]
    cases = run_model.find_cases(images, settings)
    return {case: run_model.predict_case(networks, files, settings, mirror).values for case, files in cases.items()}


def labels(file: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


def assert_same(found: dict[str, np.ndarray], out: Path) -> None:
    assert set(found) == set(CASES)
    for case, values in found.items():
        expected = labels(out / f"{case}.nii.gz")
        assert values.dtype == expected.dtype and values.shape == expected.shape
        assert len(np.unique(expected)) > 1, "a case of one label compares nothing"
        assert (values == expected).mean() >= 0.999


def change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_labels_are_those_of_predict(root: Path, configuration: str) -> None:
    model = write_model(root, STOCK, configuration)
    for case in CASES[:1]:  # with a border of zeros and a hole
        for channel in range(2):
            file = root / "images" / f"{case}_{channel:04d}.nii.gz"
            image = SimpleITK.ReadImage(str(file))
            array = SimpleITK.GetArrayFromImage(image)
            array[:2] = array[:, :3] = array[:, :, -4:] = array[4, 8:10, 8:10] = 0
            changed = SimpleITK.GetImageFromArray(array)
            changed.CopyInformation(image)
            SimpleITK.WriteImage(changed, str(file))
    for masks in ([True, True], [False, False]):
        content = plans()
        content["configurations"][configuration]["use_mask_for_norm"] = masks
        content |= {"transpose_forward": [1, 0, 2], "transpose_backward": [1, 0, 2]} if masks[0] else {}
        (model / "plans.json").write_text(json.dumps(content))
        train_with_files(model)
        run_predict(root, model, out=root / str(masks))
        assert_same(by_runner(model, root / "images"), root / str(masks))


def test_regions_and_absent_channels(root: Path) -> None:
    model = write_model(root, f"{FACTORIZER}_channeldrop")
    regions = {"background": 0, "all": [1, 2], "rim": [1], "core": [2]}  # as many outputs as the labels have
    change(model / "dataset.json", labels=regions, regions_class_order=[1, 1, 2])
    train_with_files(model)
    (root / "images" / "b_0001.nii.gz").unlink()
    run_predict(root, model)
    assert_same(by_runner(model, root / "images"), root / "out")


def test_cases_that_do_not_fit_are_named(root: Path, model: Path) -> None:
    (root / "images" / "b_0001.nii.gz").unlink()
    with pytest.raises(run_model.ModelError, match="b lacks T2"):
        by_runner(model, root / "images")
    write_image(root / "images" / "b_0002.nii.gz", 0)
    with pytest.raises(run_model.ModelError, match="b_0002.nii.gz: the model has no channel 2, only T1, T2"):
        by_runner(model, root / "images")
    with pytest.raises(run_model.ModelError, match="has no images CASE_0000.nii.gz"):
        by_runner(model, root)


def test_hidden_files_are_no_cases_and_no_file_replaces_another(root: Path, model: Path) -> None:
    (root / "images" / "._b_0001.nii.gz").write_bytes(b"of macOS")
    settings = runner_settings(load_model(model, None, CHECKPOINT_FINAL))
    assert list(run_model.find_cases(root / "images", settings)) == list(CASES)
    write_image(root / "b_0001.nii.gz", 0)
    (root / "b_0001.nii.gz").rename(root / "images" / "b_0001.NII.GZ")
    with pytest.raises(run_model.ModelError, match=r"b_0001.NII.GZ and b_0001.nii.gz are the same channel of b"):
        run_model.find_cases(root / "images", settings)


def test_models_that_cannot_be_reproduced_say_why(root: Path, model: Path) -> None:
    trained = json.loads((model / "plans.json").read_text())

    def reasons(**changes: Any) -> str:
        content = copy.deepcopy(trained)
        for key, value in changes.items():
            (content["configurations"]["3d_fullres"] if key not in content else content)[key] = value
        (model / "plans.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="cannot be exported as ONNX") as refusal:
            check_onnx(load_model(model, ["0"], CHECKPOINT_FINAL))
        return str(refusal.value)

    torchs = {"resampling_fn_data": "resample_torch_fornnunet", "resampling_fn_data_kwargs": {"is_seg": False}}
    found = reasons(**torchs, image_reader_writer="NibabelIOWithReorient")
    assert "images are resampled by another function" in found and "NibabelIOWithReorient, which may turn" in found
    assert "splines of order 2" in reasons(resampling_fn_data_kwargs={"is_seg": False, "order": 2})
    assert "logits are resampled by splines of order 3" in reasons(resampling_fn_probabilities_kwargs={"order": 3})
    change(model / "dataset.json", file_ending=".mha")
    assert "images end in .mha" in reasons()
    change(model / "dataset.json", file_ending=".nii.gz")
    (model / "plans.json").write_text(json.dumps(trained))
    write_model(root, FACTORIZER, "3d_lowres")
    with pytest.raises(UserError, match="continues the segmentations of 3d_lowres"):
        check_onnx(load_model(write_cascade(root), ["0"], CHECKPOINT_FINAL))


@pytest.mark.slow
def test_the_exported_folder_predicts_without_torch_and_nnunet(root: Path) -> None:
    pytest.importorskip("onnxscript")
    model = write_model(root, folds=2)
    assert cli.main(["export", "-m", str(model), "-o", str(root / "exported"), "--onnx"]) == 0
    run_predict(root, model, folds=("0", "1"))
    blocked = "torch", "nnunetv2", "factorizer_nnunet", "scipy", "SimpleITK", "nibabel"
    code = (
        f"import runpy, sys; del sys.argv[0]; sys.modules.update(dict.fromkeys({blocked!r})); "
        "runpy.run_path(sys.argv[0], {}, '__main__')"
    )
    command = [sys.executable, "-c", code, str(root / "exported" / "onnx" / "run_model.py")]
    command += ["-i", str(root / "images"), "-o", str(root / "by_runner")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same({case: labels(root / "by_runner" / f"{case}.nii.gz") for case in CASES}, root / "out")
    assert "kept" in subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    network = root / "exported" / "onnx" / "fold_1.onnx"
    network.write_bytes(network.read_bytes()[:-1])
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2 and "fold_1.onnx is missing or not the file that was exported" in done.stderr
    assert "onnx/fold_1.onnx is not the file" in _refused(root)


def _refused(root: Path) -> str:
    with pytest.raises(UserError) as refusal:
        run_predict(root, root / "exported", folds=None)
    return str(refusal.value)


def test_the_runner_is_one_file_that_needs_numpy_alone() -> None:
    code = (
        f"import runpy, sys; runpy.run_path({run_model.__file__!r}); "
        "print(sorted({'torch', 'nnunetv2', 'factorizer_nnunet', 'scipy', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
