"""explain predicts as nnU-Net does, writes complete cases, resumes, and refuses bad input before it writes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from killed_processes import left_draft
from tiny_models import CASES, STOCK, run_predict, write_image, write_model

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.explain import run as explain_run
from factorizer_nnunet.explain.case import explain_case
from factorizer_nnunet.explain.run import ExplainOutcome, ExplainRequest, explain
from factorizer_nnunet.nnunet.inference_settings import ITERATIONS_VARIABLE
from factorizer_nnunet.nnunet.model_folder import INFERENCE_FILE


def explained(root: Path, model: Path, **changes: object) -> ExplainOutcome:
    request = {
        "model": model,
        "images": (root / "images",),
        "out": root / "explained",
        "device": "cpu",
        "use_mirroring": False,
        "formats": ("nifti",),
        "progress_bar": False,
        **changes,
    }
    return explain(ExplainRequest(**request))


def read(file: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_prediction_maps_and_resuming(root: Path, model: Path) -> None:
    assert explained(root, model).explained == list(CASES)
    run_predict(root, model, use_mirroring=False)
    for case in CASES:
        folder = root / "explained" / case
        np.testing.assert_array_equal(read(folder / "prediction.nii.gz"), read(root / "out" / f"{case}.nii.gz"))
        described = json.loads((folder / "components.json").read_text())
        image = SimpleITK.ReadImage(str(root / "images" / f"{case}_0000.nii.gz"))
        for one in described["components"]:
            found = SimpleITK.ReadImage(str(folder / one["map"]))
            assert found.GetSize() == image.GetSize()
            np.testing.assert_allclose(found.GetSpacing(), image.GetSpacing(), rtol=1e-6)
            assert 0 <= one["energy_share"] <= one["head_share"] <= 1
        assert not list(folder.glob(".*"))
    before = contents(root / "explained" / "b")
    for file in (root / "explained" / "a").iterdir():
        file.unlink()
    (root / "explained" / "a").rmdir()
    left_draft(root / "explained" / "a")
    outcome = explained(root, model)
    assert (outcome.explained, outcome.skipped) == (["a"], ["b", "c"])
    assert sorted(os.listdir(root / "explained")) == [
        ".factorizer",
        ".lock",
        *CASES,
        "explain.json",
    ]
    assert contents(root / "explained" / "b") == before
    with pytest.raises(UserError, match="other settings. Different: use_mirroring"):
        explained(root, model, use_mirroring=True)


def test_arrays_for_notebooks(root: Path, model: Path) -> None:
    files = [root / "images" / f"a_000{channel}.nii.gz" for channel in (0, 1)]
    found = explain_case(model, files, truth=None, with_loadings=True, deletion=1)
    best = found.top(found.layers[0], "rim", 1)[0]
    volume, loadings = found.map(best.component), found.loadings(best.component)
    assert volume.values.shape == found.prediction.shape == (20, 17, 7)
    assert volume.values.max() == pytest.approx(best.largest) and best.largest > 0
    np.testing.assert_allclose(volume.grid.spacing, (1.0, 1.7, 3.2), rtol=1e-6)
    assert loadings.values.shape == (20, 17, 7, 8)
    assert np.linalg.norm(loadings.values, axis=-1).max() <= 1 + 1e-5
    assert best.deletion["rim"].dice_with_prediction is not None
    found.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ("decoder-9",)}, "--stage decoder-9: this stage has no NMF. Stages with an NMF: encoder-"),
        ({"heads": (99,)}, "--head 99: encoder-3 has heads 1 to"),
        ({"formats": ("dicom",)}, "--format: unknown format dicom; choose from nifti, png, html"),
        ({"fold": "3"}, "has no checkpoint_final.pth of fold 3: name those with -f 0"),
        ({"top": 0}, "--top must be at least 1"),
        ({"with_loadings": True, "formats": ("html",)}, "--loadings are NIfTI files: add nifti to --format"),
    ],
)
def test_invalid_options_are_refused(root: Path, model: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        explained(root, model, **changes)
    assert not (root / "explained").exists()


def test_bad_images_truths_and_folders_are_refused_before_anything_is_written(root: Path, model: Path) -> None:
    with pytest.raises(UserError, match="a has 1 channel, the model takes 2"):
        explained(root, model, images=(root / "images" / "a_0000.nii.gz",))
    swapped = tuple(root / "images" / name for name in ("a_0001.nii.gz", "a_0000.nii.gz"))
    mixed = tuple(root / "images" / name for name in ("a_0000.nii.gz", "b_0001.nii.gz"))
    for files in (swapped, mixed):
        with pytest.raises(UserError, match="not the channels of one case in order; expected a_0000.nii.gz"):
            explained(root, model, images=files)
    complete = (root / "images" / "c_0001.nii.gz").read_bytes()
    small = SimpleITK.GetImageFromArray(np.zeros((3, 4, 5), np.float32))
    SimpleITK.WriteImage(small, str(root / "images" / "c_0001.nii.gz"))
    with pytest.raises(UserError, match="c: its channels differ in shape or spacing: .*c_0000.nii.gz"):
        explained(root, model)
    (root / "images" / "c_0001.nii.gz").write_bytes(complete)
    with pytest.raises(UserError, match="cannot make /proc/explained: .*Name another folder with -o"):
        explained(root, model, out=Path("/proc/explained"))
    with pytest.raises(UserError, match="images is the folder of the images. Name another folder with -o"):
        explained(root, model, out=root / "images")
    with pytest.raises(UserError, match="missing.nii.gz not found"):
        explained(root, model, images=(root / "missing.nii.gz",))
    (root / "labels").mkdir()
    write_image(root / "labels" / "a.nii.gz", 0)
    with pytest.raises(UserError, match="b.nii.gz is missing"):
        explained(root, model, truths=root / "labels")
    for case in CASES:
        labels = np.full((7, 17, 20), 5 if case == "b" else 1, np.uint8)
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(labels), str(root / "labels" / f"{case}.nii.gz"))
    with pytest.raises(UserError, match="b.nii.gz contains label values that dataset.json does not declare: 5"):
        explained(root, model, truths=root / "labels")
    complete = (root / "images" / "b_0001.nii.gz").read_bytes()
    (root / "images" / "b_0001.nii.gz").write_bytes(complete[:500])
    with pytest.raises(UserError, match="b: .*b_0001.nii.gz is a truncated or damaged gzip file"):
        explained(root, model)
    (root / "file").write_text("mine")
    with pytest.raises(UserError, match="file is a file. Name a folder with -o"):
        explained(root, model, out=root / "file")
    with pytest.raises(UserError, match="file is a file, so .*below cannot be created. Name another folder with -o"):
        explained(root, model, out=root / "file" / "below")
    assert not (root / "explained").exists()


def test_an_existing_folder_named_like_a_case_is_not_touched(root: Path, model: Path) -> None:
    (root / "explained" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="contains a, but no explain.json, so explain did not write it"):
        explained(root, model)
    assert contents(root / "explained") == {}


def test_other_networks_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="contains a PlainConvUNet, but only a Factorizer has components"):
        explained(root, write_model(root, STOCK))
    assert not (root / "explained").exists()


def test_2d_models_are_explained(root: Path) -> None:
    outcome = explained(root, write_model(root, configuration="2d"), images=(root / "images",), stages=("encoder-3",))
    assert outcome.failed == {}
    assert read(root / "explained" / "a" / "encoder-3_head-01.nii.gz").shape == (7, 17, 20)


def test_a_failing_case_leaves_no_files_and_does_not_stop_others(
    root: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, made: object, with_maps: bool, with_loadings: bool) -> None:
        if folder.name.startswith(".b."):
            raise OSError("no space left")

    monkeypatch.setattr(explain_run, "write_description", fail)
    outcome = explained(root, model)
    assert (outcome.explained, outcome.failed) == (["a", "c"], {"b": "OSError: no space left"})
    assert sorted(os.listdir(root / "explained")) == [
        ".factorizer",
        ".lock",
        "a",
        "c",
        "explain.json",
    ]


def test_a_truth_equal_to_the_prediction_gets_equal_scores(root: Path, model: Path) -> None:
    run_predict(root, model, use_mirroring=False)
    explained(root, model, truths=root / "out", deletion=1, heads=(1, 1, 2), formats=("nifti", "png", "html"))
    folder = root / "explained" / "a"
    described = json.loads((folder / "components.json").read_text())
    assert {one["head"] for one in described["components"]} == {1, 2}
    tested = [one for one in described["components"] if one["deletion"]]
    assert tested
    for one in described["components"]:
        assert one["true"] == one["predicted"]
    for change in (change for one in tested for change in one["deletion"].values()):
        if change["dice_change"] is not None:
            assert change["dice_change"] == pytest.approx(change["dice_with_prediction"] - 1)
    # The maps of the chosen heads equal those of a run with all heads.
    explained(root, model, out=root / "all")
    for one in described["components"]:
        np.testing.assert_array_equal(read(folder / one["map"]), read(root / "all" / "a" / one["map"]))


def test_auc_matches_the_written_map(root: Path, model: Path) -> None:
    explained(root, model, images=tuple(root / "images" / f"a_000{channel}.nii.gz" for channel in (0, 1)))
    folder = root / "explained" / "a"
    labels = read(folder / "prediction.nii.gz")
    checked = 0
    for one in json.loads((folder / "components.json").read_text())["components"]:
        values = read(folder / one["map"])
        for name, label in (("rim", 1), ("core", 2)):
            inside, outside = values[labels == label], np.sort(values[labels != label])
            if inside.size and outside.size:
                below = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
                assert one["predicted"][name]["auc"] == pytest.approx(below.mean() / 2 / outside.size, abs=2e-3)
                checked += 1
            else:
                assert one["predicted"][name]["auc"] is None
    assert checked


def test_a_full_disk_leaves_no_case_and_an_interrupt_ends_the_run(
    root: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, volume: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(explain_run, "write_map", full)
    assert set(explained(root, model).failed) == set(CASES)
    assert sorted(os.listdir(root / "explained")) == [".factorizer", ".lock", "explain.json"]

    def interrupted(file: Path, volume: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(explain_run, "write_map", interrupted)
    with pytest.raises(KeyboardInterrupt):
        explained(root, model)
    assert sorted(os.listdir(root / "explained")) == [".factorizer", ".lock", "explain.json"]


def test_tile_step_and_variables_are_part_of_the_settings(
    root: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / INFERENCE_FILE).write_text(json.dumps({"tile_step_size": 1.0}))
    monkeypatch.setenv(ITERATIONS_VARIABLE, "1")
    explained(root, model, stages=("encoder-3",))
    recorded = json.loads((root / "explained" / "explain.json").read_text())
    assert (recorded["tile_step_size"], recorded["num_iters"]) == (1.0, 1)
    monkeypatch.delenv(ITERATIONS_VARIABLE)
    with pytest.raises(UserError, match="other settings. Different: num_iters"):
        explained(root, model, stages=("encoder-3",))


def test_two_runs_cannot_share_a_folder(root: Path, model: Path) -> None:
    (root / "explained").mkdir()
    with (
        file_lock(root / "explained" / ".lock", "taken"),
        pytest.raises(UserError, match="another explain is writing .*explained; wait until it ends"),
    ):
        explained(root, model)


@pytest.mark.slow
def test_the_command(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(root / "images" / f"a_000{channel}.nii.gz") for channel in (0, 1)]
    arguments = ["explain", "-i", *files, "-m", str(model), "-f", "0", "-o", str(root / "explained")]
    assert cli.main([*arguments, "--device", "cpu", "--loadings", "--deletion", "1"]) == 0
    assert "explained: 1, complete before: 0, failed: 0" in capsys.readouterr().out
    names = {path.name for path in (root / "explained" / "a").iterdir()}
    assert {"a.html", "panel_rim.png", "components.json", "prediction.nii.gz", "encoder-3_head-01.nii.gz"} <= names
    assert "encoder-3_head-01_loadings.nii.gz" in names
