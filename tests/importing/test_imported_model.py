"""An imported model computes what the authors' network did, and serves nnU-Net's commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from blobs import write_dataset as write_raw
from import_example import (
    NAME,
    SIZE,
    base_plans,
    built_network,
    contents,
    describe,
    run_import,
    saved,
    write_dataset,
    write_json,
)
from preprocessed_case import save_case
from upstream_example import CONFIG, upstream_state

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.importing.model import UPSTREAM_PLANS_NAME
from factorizer_nnunet.network import from_upstream

AUTHORS = Path(__file__).parents[1] / "network" / "authors"  # results of the authors' implementation


@pytest.mark.parametrize("path", sorted(AUTHORS.glob("net_*.npz")), ids=lambda path: path.stem)
def test_an_imported_model_gives_what_the_authors_network_gave(folders: Path, path: Path) -> None:
    with np.load(path) as arrays:
        x, expected = (torch.from_numpy(arrays[name]) for name in ("x", "y0"))
    write_dataset(folders, describe(x.shape[1], expected.shape[1], regions=expected.shape[1] > 2))
    if expected.shape[1] == 1:
        # nnU-Net knows no single output: it asks for the background's logit, too.
        write_dataset(folders, describe(x.shape[1], 2))
        expected = torch.cat((torch.zeros_like(expected), expected), 1)
    name = {4: "2d", 5: "3d_fullres"}[x.ndim]
    imported = run_import(folders, weights=path, config_file=None, configuration=name)
    network = built_network(imported, name).double()
    error = torch.linalg.norm(network(x) - expected) / torch.linalg.norm(expected)
    assert error < 1e-4


def test_the_names_of_the_example_are_the_authors() -> None:
    with np.load(AUTHORS / "net_swin_4shifts.npz") as arrays:
        config = json.loads(str(arrays["config"]))
        theirs = {name.removeprefix("state/"): arrays[name].shape for name in arrays.files if "state/" in name}
    assert {name: tuple(value.shape) for name, value in upstream_state(config).items()} == theirs


def test_plans_keep_what_is_not_of_the_network(folders: Path) -> None:
    plans = json.loads(run_import(folders, axes="plans", configuration="wide").targets.plans_file.read_text())
    base = base_plans()
    assert {key for key in base if plans[key] != base[key]} == {
        "plans_name",
        "experiment_planner_used",
        "configurations",
    }
    assert list(plans["configurations"]) == ["wide"]
    settings, old = plans["configurations"]["wide"], base["configurations"]["3d_lowres"]
    assert {key for key in old if settings.get(key) != old[key]} == {
        "data_identifier",
        "batch_size",
        "patch_size",
        "architecture",
        "next_stage",  # would name a configuration that these plans do not have
    }
    assert settings["data_identifier"] == f"{UPSTREAM_PLANS_NAME}_wide"
    assert settings["batch_size"] == 3
    assert settings["patch_size"] == list(SIZE)


def test_axes_and_spacing_follow_the_network(folders: Path) -> None:
    imported = run_import(folders, spacing_mm=[2, 2, 1.5])
    plans = json.loads(imported.targets.plans_file.read_text())
    settings = plans["configurations"]["3d_fullres"]
    assert plans["transpose_forward"] == plans["transpose_backward"] == [2, 1, 0]
    assert plans["original_median_spacing_after_transp"] == [1.0, 2.0, 3.0]
    assert settings["spacing"] == [2.0, 2.0, 1.5]
    assert settings["median_image_size_in_voxels"] == [15.0, 20.0, 20.0]


def test_axes_of_plans_that_are_transposed_already(folders: Path) -> None:
    transposed = {"transpose_forward": [1, 2, 0], "transpose_backward": [2, 0, 1]}
    write_dataset(folders, describe(2, 3), {**base_plans(), **transposed})
    plans = json.loads(run_import(folders).targets.plans_file.read_text())
    # Before, the axes were y, x, z of 3, 2 and 1 mm.
    assert plans["transpose_forward"] == [2, 1, 0]
    assert plans["configurations"]["3d_fullres"]["spacing"] == [2.0, 3.0, 1.0]


def test_slices_stay_the_same_in_2d(folders: Path) -> None:
    config = {**CONFIG, "spatial_size": [16, 8]}
    write_json(folders / "config.json", config)
    torch.save(upstream_state(config), folders / "weights.pt")
    plans = json.loads(run_import(folders, configuration="2d").targets.plans_file.read_text())
    assert plans["transpose_forward"] == plans["transpose_backward"] == [0, 2, 1]
    assert plans["configurations"]["2d"]["spacing"] == [1.0, 2.0]


@pytest.mark.parametrize(("voxels", "expected"), [(1, 12), (2, 6), (100, 2)])
def test_a_larger_patch_gets_fewer_cases_in_a_batch(voxels: int, expected: int) -> None:
    from factorizer_nnunet.importing.plans import _batch_size

    assert _batch_size(12, 10, 10 * voxels) == expected
    assert _batch_size(1, 10, 10 * voxels) == 1


def test_channels_and_outputs_change_places_exactly(folders: Path) -> None:
    imported = run_import(folders, input_order=[1, 0], output_order=[2, 0, 1])
    x = torch.randn(1, 2, *SIZE)
    with torch.no_grad():
        ours = built_network(imported)(x)
        theirs = from_upstream(CONFIG, upstream_state(CONFIG))(x[:, [1, 0]])
    torch.testing.assert_close(ours, theirs[:, [2, 0, 1]])


def test_the_network_sees_the_axes_as_the_authors_did(folders: Path) -> None:
    """nnU-Net's own predictor on an image in its order (z, y, x), against the network on one in order (x, y, z)."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    plans = base_plans()
    plans["configurations"]["3d_fullres"]["spacing"] = [1.0, 1.0, 1.0]
    write_dataset(folders, describe(2, 3), plans)
    imported = run_import(folders)
    # Gaussian weights are so small at the corners of a patch that nnU-Net's half precision shows.
    predictor = nnUNetPredictor(use_gaussian=False, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(imported.targets.model.path), ("all",))
    assert predictor.allowed_mirroring_axes == (0, 1, 2)
    image = np.random.default_rng(0).normal(size=(2, *SIZE[::-1])).astype(np.float32)
    _, probabilities = predictor.predict_single_npy_array(
        image, {"spacing": [1.0, 1.0, 1.0]}, save_or_return_probabilities=True
    )
    x = torch.from_numpy(image).permute(0, 3, 2, 1)
    x = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), correction=0, keepdim=True)
    with torch.no_grad():
        expected = from_upstream(CONFIG, upstream_state(CONFIG))(x[None])[0].softmax(0).permute(0, 3, 2, 1)
    np.testing.assert_allclose(probabilities, expected, atol=5e-3)


def test_the_checkpoint_serves_nnunets_training(folders: Path) -> None:
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

    imported = run_import(folders)
    expected = from_upstream(CONFIG, upstream_state(CONFIG)).state_dict()
    plans = json.loads(imported.targets.plans_file.read_text())
    data = imported.targets.plans_file.parent / f"{UPSTREAM_PLANS_NAME}_3d_fullres"
    data.mkdir()
    save_case(data, "case_0")  # from which nnU-Net finds out how the cases are stored
    (data.parent / "dataset_fingerprint.json").write_text("{}")
    trainer = nnUNetTrainerFactorizer(
        {**plans, "continue_training": False}, "3d_fullres", "all", describe(2, 3), torch.device("cpu")
    )
    trainer.initialize()
    load_pretrained_weights(trainer.network, str(imported.targets.fold.checkpoint()))
    state = trainer.network.state_dict()
    heads = {name for name in state if ".seg_layers." in name}  # nnU-Net leaves them out
    assert all(torch.equal(state[name], expected[name]) for name in set(state) - heads)
    trainer.load_checkpoint(str(imported.targets.fold.checkpoint()))
    assert all(torch.equal(value, expected[name]) for name, value in trainer.network.state_dict().items())
    assert trainer.current_epoch == 0


def test_further_weights_become_folds_of_the_model(folders: Path) -> None:
    first = run_import(folders, fold="0")
    before = contents(folders)
    torch.save(upstream_state(CONFIG, seed=1), folders / "weights.pt")
    second = run_import(folders, fold="1")
    assert first.targets.model == second.targets.model
    after = contents(folders)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2  # the fold and its checkpoint
    assert saved(second)["init_args"]["fold"] == 1
    with pytest.raises(UserError, match=r"fold_1 exists and is not overwritten: choose another fold with -f, or .*"):
        run_import(folders, fold="1")
    with pytest.raises(UserError, match=r"Plans\.json exists with other content.*--plans-name"):
        run_import(folders, fold="2", spacing_mm=[1, 1, 1])
    assert contents(folders) == after


def test_a_folder_that_is_not_such_a_model_is_not_changed(folders: Path) -> None:
    imported = run_import(folders)
    imported.targets.model.plans_file.unlink()
    with pytest.raises(UserError, match=r"is not a model of these plans: choose another name with --plans-name"):
        run_import(folders, fold="0")


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("unexpected pos"), KeyboardInterrupt()])
def test_an_interrupted_import_leaves_no_half_and_can_be_repeated(
    folders: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def cut_short(content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", cut_short)
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else UserError):
            run_import(folders)
    assert list((folders / "nnUNet_results" / NAME).iterdir()) == []
    run_import(folders)


def test_the_command_tells_how_it_understood_the_weights_and_what_comes_next(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, config = str(folders / "weights.pt"), str(folders / "config.json")
    order = ["--input-order", "1", "0", "--output-order", "2", "0", "1"]
    assert cli.main(["import-upstream", weights, "--config", config, "-d", "7", "-f", "0", *order]) == 0
    out = capsys.readouterr().out
    assert "inputs of the weights are taken to be   0: channel 1, 1: channel 0\n" in out
    assert "outputs of the weights are taken to be  0: label 1, 1: label 2, 2: background\n" in out
    names = f"-tr nnUNetTrainerFactorizer -p {UPSTREAM_PLANS_NAME}"
    assert f"nnUNetv2_predict -d 7 -c 3d_fullres -f 0 {names} -i IN -o OUT\n" in out
    assert f"nnUNetv2_preprocess -d 7 -plans_name {UPSTREAM_PLANS_NAME} -c 3d_fullres\n" in out
    checkpoint = out.split("-pretrained_weights ")[1].strip()
    assert Path(checkpoint).is_file()
    assert cli.main(["import-upstream", weights, "-d", "7"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {weights} contains no configuration")


def test_a_single_output_is_told_with_its_background(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {**CONFIG, "out_channels": 1}
    write_json(folders / "config.json", config)
    state = {f"net.{name}": value for name, value in upstream_state(config).items()}
    torch.save({"state_dict": {"loss.w": torch.ones(1), **state}}, folders / "weights.pt")
    write_dataset(folders, describe(2, 2))
    arguments = [str(folders / "weights.pt"), "--config", str(folders / "config.json"), "-d", NAME]
    assert cli.main(["import-upstream", *arguments]) == 0
    out = capsys.readouterr().out
    assert "Skipped entries that are not part of the network: loss.w\n" in out
    assert "only output of the weights is taken to be label 1, and background where it is negative\n" in out


def test_an_imported_model_can_be_finetuned_on_other_data(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = run_import(folders).targets.model.path
    write_raw(folders / "nnUNet_raw" / "Dataset008_Further", {"background": 0, "label 2": 1, "new": 2})
    command = ["finetune", "--from", str(model), "-d", "8", "--map", "channel 1=T2", "-device", "cpu", "--dry-run"]
    assert cli.main(command) == 0
    lines = [" ".join(line.replace("|", " ").split()) for line in capsys.readouterr().out.splitlines()]
    assert f"Dataset008_Further starts from {NAME}, {model.name}, fold all" in lines
    assert "T1 new, from the mean of channel 0, channel 1" in lines and "T2 channel 1" in lines
    assert "label 2 label 2" in lines and "new new, from the mean of label 1, label 2" in lines
