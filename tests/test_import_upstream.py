"""Importing weights of the authors: the model computes what theirs did; bad input is told and nothing written."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from upstream_example import CONFIG, upstream_state

from factorizer_nnunet import cli
from factorizer_nnunet.environment import create_folders, environment_variables
from factorizer_nnunet.errors import UserError
from factorizer_nnunet.importing.model import UPSTREAM_PLANS_NAME, ImportedModel, ImportRequest, import_upstream
from factorizer_nnunet.importing.weights import read_weights
from factorizer_nnunet.network import Factorizer, from_upstream

AUTHORS = Path(__file__).parent / "network" / "authors"  # results of the authors' implementation
NAME = "Dataset007_Tiny"
SIZE = tuple(CONFIG["spatial_size"])


def configuration(ndim: int) -> dict[str, Any]:
    axes = slice(3 - ndim, None)
    return {
        "data_identifier": f"nnUNetPlans_{ndim}d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 12,
        "patch_size": [8, 16, 24][axes],
        "median_image_size_in_voxels": [10.0, 20.0, 30.0][axes],
        "spacing": [3.0, 2.0, 1.0][axes],
        "normalization_schemes": ["ZScoreNormalization"] * 2,
        "use_mask_for_norm": [False, False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "batch_dice": False,
        "architecture": {"network_class_name": "any.Network", "arch_kwargs": {}, "_kw_requires_import": []},
    }


def base_plans() -> dict[str, Any]:
    return {
        "dataset_name": NAME,
        "plans_name": "nnUNetFactorizerPlans",
        "original_median_spacing_after_transp": [3.0, 2.0, 1.0],
        "original_median_shape_after_transp": [10, 20, 30],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": configuration(2),
            "3d_lowres": {**configuration(3), "next_stage": "3d_cascade_fullres"},
            "3d_fullres": configuration(3),
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
            "wide": {"inherits_from": "3d_lowres", "batch_size": 3},
        },
        "experiment_planner_used": "nnUNetPlannerFactorizer",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}, "1": {}},
    }


def describe(channels: int, outputs: int, regions: bool = False) -> dict[str, Any]:
    """``dataset.json`` of so many channels, and outputs as nnU-Net counts them."""
    if regions:
        labels = {f"region {i}": list(range(i + 1, outputs + 2)) for i in range(outputs)}
        order = {"regions_class_order": list(range(1, outputs + 1))}
    else:
        labels, order = {f"label {i}": i for i in range(1, outputs)}, {}
    return {
        "channel_names": {str(i): f"channel {i}" for i in range(channels)},
        "labels": {"background": 0, **labels},
        "numTraining": 3,
        "file_ending": ".nii.gz",
        **order,
    }


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parent of nnU-Net's folders with a planned data set that fits CONFIG, and of the files to import."""
    create_folders(tmp_path)
    for variable, value in environment_variables(tmp_path, {}).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("nnUNet_compile", "f")
    write_dataset(tmp_path, describe(2, 3))
    write_json(tmp_path / "config.json", CONFIG)
    torch.save(upstream_state(CONFIG), tmp_path / "weights.pt")
    return tmp_path


def write_dataset(folders: Path, description: dict[str, Any], plans: dict[str, Any] | None = None) -> None:
    dataset = folders / "nnUNet_preprocessed" / NAME
    write_json(dataset / "dataset.json", description)
    write_json(dataset / "nnUNetFactorizerPlans.json", base_plans() if plans is None else plans)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def contents(folders: Path) -> dict[str, bytes | None]:
    """All below nnU-Net's folders; folders themselves as None."""
    return {
        str(path.relative_to(folders)): path.read_bytes() if path.is_file() else None
        for path in folders.glob("nnUNet_*/**/*")
    }


def run_import(folders: Path, **changes: Any) -> ImportedModel:
    request = {"weights": folders / "weights.pt", "config_file": folders / "config.json", "dataset": 7, **changes}
    return import_upstream(ImportRequest(**request))


def built_network(imported: ImportedModel, configuration: str = "3d_fullres") -> Factorizer:
    """The network that nnU-Net builds from the model folder, with the weights it reads there."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(str(imported.targets.model / "plans.json"))
    description = json.loads((imported.targets.model / "dataset.json").read_text())
    settings = plans.get_configuration(configuration)
    network = get_network_from_plans(
        settings.network_arch_class_name,
        settings.network_arch_init_kwargs,
        settings.network_arch_init_kwargs_req_import,
        determine_num_input_channels(plans, settings, description),
        plans.get_label_manager(description).num_segmentation_heads,
        deep_supervision=False,
    )
    network.load_state_dict(saved(imported)["network_weights"])
    return network


def saved(imported: ImportedModel) -> dict[str, Any]:
    return torch.load(imported.targets.checkpoint, weights_only=True)


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


STATE = {"stem.weight": torch.ones(2, 1), "head.weight": torch.ones(3)}


@pytest.mark.parametrize(
    ("content", "left_out"),
    [
        (STATE, ()),
        ({"state_dict": {f"net.{name}": value for name, value in STATE.items()}, "epoch": 3}, ()),
        ({"model": STATE, "optimizer": {"state": {}}}, ()),
        ({"state_dict": {**{f"a.b.{k}": v for k, v in STATE.items()}, "loss.w": torch.ones(1)}}, ("loss.w",)),
        ({f"module.{name}": value for name, value in STATE.items()}, ()),
    ],
)
def test_weights_are_found_where_others_keep_them(tmp_path: Path, content: object, left_out: tuple[str, ...]) -> None:
    torch.save(content, tmp_path / "w.ckpt")
    weights = read_weights(tmp_path / "w.ckpt")
    assert weights.state.keys() == STATE.keys()
    assert all(torch.equal(weights.state[name], value) for name, value in STATE.items())
    assert (weights.left_out, weights.config) == (left_out, None)


def save(content: object) -> Callable[[Path], None]:
    return lambda folders: torch.save(content, folders / "weights.pt")


BAD_WEIGHTS = {
    "missing": (lambda folders: (folders / "weights.pt").unlink(), r"cannot read .*weights\.pt: No such file"),
    "text": (lambda folders: (folders / "weights.pt").write_text("no weights"), "no file that torch can read"),
    "empty": (lambda folders: (folders / "weights.pt").write_bytes(b""), "no file that torch can read"),
    "cut off": (
        lambda folders: (folders / "weights.pt").write_bytes((folders / "weights.pt").read_bytes()[:5000]),
        "no file that torch can read",
    ),
    "code": (
        save({"state_dict": STATE, "hyper_parameters": argparse.Namespace(lr=1)}),
        r"asks for argparse\.Namespace\).*whatever the file says, so it is refused.*weights_only=False",
    ),
    "metrics of MONAI": (
        save({"model": STATE, "logger": {"metrics": defaultdict(list)}}),
        r"asks for collections\.defaultdict\).*in a MONAI bundle the key is 'model'",
    ),
    "a module": (save(torch.nn.Linear(1, 1)), r"asks for torch\.nn\.modules\.linear\.Linear\).*refused"),
    "a list": (save([torch.ones(1)]), "holds no state_dict but list"),
    "another network": (save({"conv.weight": torch.ones(1)}), r"has no parameter stem\.weight; it has conv\.weight"),
    "two networks": (save({"a.stem.weight": torch.ones(1), "b.stem.weight": torch.ones(1)}), "2 networks, under 'a.'"),
    "no tensor": (save({"stem.weight": 1}), r"stem\.weight is no tensor but int"),
    "too few": (save(STATE), "is not of the configuration given: 'stem.weight' has shape"),
    "a parameter missing": (
        save({k: v for k, v in upstream_state(CONFIG).items() if k != "encoder.blocks.1.downsample.bias"}),
        "hold nothing for 'encoder.downsamples.0.conv.bias'",
    ),
}


@pytest.mark.parametrize(("change", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_bad_weights_are_told_and_nothing_is_written(
    folders: Path, change: Callable[[Path], None], message: str
) -> None:
    change(folders)
    before = contents(folders)
    with pytest.raises(UserError, match=message):
        run_import(folders)
    assert contents(folders) == before


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones(1)}, r"no arrays named state/NAME"),
        ({"state/stem.weight": np.array([{}])}, r"no \.npz of plain arrays"),
        ({"state/stem.weight": np.array(["text"])}, r"no \.npz of plain arrays"),
        ({"state/stem.weight": np.ones(1), "config": "{"}, r"no \.npz of plain arrays"),
        (None, r"no \.npz of plain arrays"),
    ],
)
def test_bad_arrays_are_told(tmp_path: Path, arrays: dict[str, Any] | None, message: str) -> None:
    path = tmp_path / "weights.npz"
    if arrays is None:
        path.write_bytes(b"no arrays")
    else:
        np.savez(path, **arrays)
    with pytest.raises(UserError, match=message):
        read_weights(path)


BAD_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "misspelled": ({"num_iter": 9}, "'num_iter' is unknown; known: in_channels"),
    "another part": ({"act": "$nn.GELU"}, r"act='\$nn\.GELU' has no counterpart; valid: 'ReLU'"),
    "a reference": ({"spatial_size": "@roi_size"}, "spatial_size='@roi_size' is impossible; valid: 2 or 3 numbers"),
    "no list": ({"encoder_width": 8}, "encoder_width=8 is impossible; valid: a width per stage"),
    "a negative depth": ({"encoder_depth": [1, -1]}, "encoder_depth"),
    "strides of 2 axes": ({"strides": [1, [2, 2]]}, "strides=.* is impossible; .* each an integer or 3 of them"),
    "no pair": ({"reshape": "SWMatricize"}, "reshape='SWMatricize' is impossible; valid: a name and its options"),
    "unknown matrices": ({"reshape": ["Tensorize", {}]}, "reshape='Tensorize' is unknown"),
    "unknown option": ({"reshape": ["Matricize", {"head": 1}]}, "reshape: 'head' is unknown"),
    "option of wrong form": ({"reshape": ["Matricize", {"head_dim": "8"}]}, "reshape: head_dim='8' is impossible"),
    "too many windows": (
        {"reshape": ["SWMatricize", {"head_dim": 8, "grid_size": 99, "shifts": [1]}]},
        r"configuration in .*config\.json",
    ),
    "indivisible": ({"spatial_size": [16, 16, 9]}, r"configuration in .*config\.json"),
    "text as number": ({"mlp_ratio": "2"}, "mlp_ratio='2' is impossible; valid: a number"),
}


@pytest.mark.parametrize(("change", "message"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_bad_configurations_are_told(folders: Path, change: dict[str, Any], message: str) -> None:
    write_json(folders / "config.json", {**CONFIG, **change})
    before = contents(folders)
    with pytest.raises(UserError, match=message):
        run_import(folders)
    assert contents(folders) == before


def test_a_configuration_may_be_written_as_in_the_authors_bundles(folders: Path) -> None:
    bundle = {
        "_target_": "factorizer.Factorizer",
        "norm": "$factorizer.LayerNorm",
        "act": "$nn.ReLU",
        "factorize": "$factorizer.NMF",
        "init": "uniform",
        "num_grad_steps": None,
        "reshape": ["$factorizer.SWMatricize", CONFIG["reshape"][1]],
    }
    write_json(folders / "config.json", {**CONFIG, **bundle})
    run_import(folders)


BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "no configuration": ({"config_file": None}, r"weights\.pt holds no configuration.*--config"),
    "no config file": ({"config_file": Path("gone.json")}, r"cannot read gone\.json"),
    "unknown data set": ({"dataset": 8}, f"no data set 8 in nnUNet_preprocessed .*Known there: {NAME}"),
    "no plans": ({"plans": "mine"}, r"has no plans mine .*plan -d 7 --no-preprocess --plans-name mine"),
    "unknown configuration of plans": ({"configuration": "3d"}, "no configuration '3d', only 2d, 3d_lowres"),
    "3D for 2D": ({"configuration": "2d"}, r"2d has 2 axes, the weights' spatial_size \[16, 16, 8\] has 3"),
    "cascade": ({"configuration": "3d_cascade_fullres"}, "second stage of a cascade"),
    "spacing of 2 axes": ({"spacing_mm": [1, 1]}, r"the spacing \[1, 1\] has 2 values, 3d_fullres has 3 axes"),
    "no spacing": ({"spacing_mm": [1, 0, 1]}, r"the spacing is \[1, 0, 1\] mm"),
    "a folder as name": ({"plans_name": "a/b"}, "'a/b' cannot name a plans file"),
    "a name that nnU-Net parts": ({"plans_name": "a__b"}, "'a__b' cannot name a plans file"),
    "no fold": ({"fold": "first"}, "fold 'first' is impossible"),
    "unknown axes": ({"axes": "zyx"}, "axes 'zyx' are unknown: choose from xyz, plans"),
    "channels twice": ({"input_order": [0, 0]}, r"input order \[0, 0\] must have each number from 0 to 1 once"),
    "too few outputs": ({"output_order": [1, 0]}, r"output order \[1, 0\] must have each number from 0 to 2 once"),
    "plans that exist": ({"plans_name": "nnUNetFactorizerPlans"}, "exists with other content and is not overwritten"),
}


@pytest.mark.parametrize(("change", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments_are_told(folders: Path, change: dict[str, Any], message: str) -> None:
    before = contents(folders)
    with pytest.raises(UserError, match=message):
        run_import(folders, **change)
    assert contents(folders) == before


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (describe(3, 3), "the weights take 2 channels, dataset.json has 3: channel 0, channel 1, channel 2"),
        (describe(2, 4), "the weights give 3 outputs, for dataset.json nnU-Net counts 4: background, label 1"),
        (describe(2, 2, regions=True), "the weights give 3 outputs, for dataset.json nnU-Net counts 2: region 0"),
        ({**describe(2, 3), "labels": {"a": 1}}, "nnU-Net cannot read its labels and channels: Background"),
    ],
)
def test_data_sets_that_do_not_fit_are_told(folders: Path, description: dict[str, Any], message: str) -> None:
    write_dataset(folders, description)
    with pytest.raises(UserError, match=message):
        run_import(folders)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_name": "Dataset008_Other"}, "was made for Dataset008_Other, not for Dataset007_Tiny"),
        ({"configurations": None}, "configurations must be an object, not None"),
        ({"transpose_forward": [0, 1]}, "transpose_forward must be 0, 1 and 2 in some order"),
        ({"configurations": {"3d_fullres": {"inherits_from": "gone"}}}, "cannot read configuration 3d_fullres"),
        ({"configurations": {"3d_fullres": {"architecture": {}}}}, "configuration 3d_fullres has no 'batch_size'"),
    ],
)
def test_damaged_plans_are_told(folders: Path, change: dict[str, Any], message: str) -> None:
    write_dataset(folders, describe(2, 3), {**base_plans(), **change})
    with pytest.raises(UserError, match=message):
        run_import(folders)


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
    predictor.initialize_from_trained_model_folder(str(imported.targets.model), ("all",))
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
    for file in ("case_0.b2nd", "case_0.pkl"):  # by which nnU-Net tells how the cases are stored
        (data / file).touch()
    trainer = nnUNetTrainerFactorizer(
        {**plans, "continue_training": False}, "3d_fullres", "all", describe(2, 3), torch.device("cpu")
    )
    trainer.initialize()
    load_pretrained_weights(trainer.network, str(imported.targets.checkpoint))
    state = trainer.network.state_dict()
    heads = {name for name in state if ".seg_layers." in name}  # nnU-Net leaves them out
    assert all(torch.equal(state[name], expected[name]) for name in set(state) - heads)
    trainer.load_checkpoint(str(imported.targets.checkpoint))
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


def test_a_folder_that_is_no_such_model_is_left_alone(folders: Path) -> None:
    imported = run_import(folders)
    (imported.targets.model / "plans.json").unlink()
    with pytest.raises(UserError, match=r"is no model of these plans: choose another name with --plans-name"):
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
    assert "inputs are taken to be   0: channel 1, 1: channel 0\n" in out
    assert "outputs are taken to be  0: label 1, 1: label 2, 2: background\n" in out
    names = f"-tr nnUNetTrainerFactorizer -p {UPSTREAM_PLANS_NAME}"
    assert f"nnUNetv2_predict -d 7 -c 3d_fullres -f 0 {names} -i IN -o OUT\n" in out
    assert f"nnUNetv2_preprocess -d 7 -plans_name {UPSTREAM_PLANS_NAME} -c 3d_fullres\n" in out
    checkpoint = out.split("-pretrained_weights ")[1].strip()
    assert Path(checkpoint).is_file()
    assert cli.main(["import-upstream", weights, "-d", "7"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {weights} holds no configuration")


def test_a_single_output_is_told_with_its_background(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {**CONFIG, "out_channels": 1}
    write_json(folders / "config.json", config)
    state = {f"net.{name}": value for name, value in upstream_state(config).items()}
    torch.save({"state_dict": {"loss.w": torch.ones(1), **state}}, folders / "weights.pt")
    write_dataset(folders, describe(2, 2))
    arguments = [str(folders / "weights.pt"), "--config", str(folders / "config.json"), "-d", NAME]
    assert cli.main(["import-upstream", *arguments]) == 0
    out = capsys.readouterr().out
    assert "Left out, as not of the network: loss.w\n" in out
    assert "only output is taken to be label 1, and background where it is negative\n" in out
