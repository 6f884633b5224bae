"""Templates: what fits gives plans from which nnU-Net builds the network; what does not is refused before writing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from planning_example import NAME, NUM_CASES, dataset_json, fingerprint, write_image, write_json

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.demo.phantom import SHAPE, SPACING_MM
from factorizer_nnunet.network import default_form, variant_arguments
from factorizer_nnunet.planning.dataset import plan_dataset
from factorizer_nnunet.planning.templates import apply_template, load_template, template_sources

# channels, size in voxels after cropping, and voxel size in mm, of data as our conversion leaves them
DATA = {
    "brats_published": (4, (140, 171, 137), 1.0),
    "brats_fast": (4, (140, 171, 137), 1.0),
    "isles22_published": (3, (68, 88, 72), 2.0),
    "isles22_fast": (2, (68, 88, 72), 2.0),
    "hippocampus": (1, (36, 50, 35), 1.0),
    "demo": (4, SHAPE, SPACING_MM),
}


def raw_data(folders: Path, channels: int, shape: tuple[int, ...] = (8, 8, 8)) -> Path:
    """Three cases in nnU-Net's raw layout, of so many channels."""
    folder = folders / "nnUNet_raw" / NAME
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    for case in range(NUM_CASES):
        for channel in range(channels):
            image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            write_image(folder / "imagesTr" / f"case_{case}_{channel:04d}.nii.gz", image)
        write_image(folder / "labelsTr" / f"case_{case}.nii.gz", np.ones(shape, np.uint8))
    write_json(
        folder / "dataset.json", {**dataset_json(), "channel_names": {str(c): f"MR{c}" for c in range(channels)}}
    )
    return folder


def write_fingerprint(folders: Path, channels: int, shape: tuple[int, ...], mm: float) -> None:
    """A fingerprint as if the cases of ``raw_data`` had this size; planning looks at nothing else."""
    content = fingerprint(shape)
    intensities = content["foreground_intensity_properties_per_channel"]["0"]
    content["spacings"] = [[mm] * 3] * NUM_CASES
    content["foreground_intensity_properties_per_channel"] = {str(c): intensities for c in range(channels)}
    write_json(folders / "nnUNet_preprocessed" / NAME / "dataset_fingerprint.json", content)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net builds U-Nets to estimate their memory, for seconds; what follows from it, the template replaces."""
    monkeypatch.setattr(ExperimentPlanner, "static_estimate_VRAM_usage", lambda *args: 1e6)


def written(folders: Path) -> list[str]:
    return sorted(path.name for path in (folders / "nnUNet_preprocessed").rglob("*") if path.is_file())


def test_every_template_has_fitting_data_here() -> None:
    assert set(DATA) == set(template_sources())


@pytest.mark.parametrize("name", DATA)
def test_a_template_gives_plans_whose_network_takes_its_patch(folders: Path, little_memory: None, name: str) -> None:
    channels, shape, mm = DATA[name]
    raw_data(folders, channels)
    write_fingerprint(folders, channels, shape, mm)
    plans_file = plan_dataset(7, template=name, preprocess=False)
    assert plans_file.name == f"nnUNetFactorizerTemplatePlans_{name}.json"
    template, plans = load_template(name), PlansManager(str(plans_file))
    assert plans.plans["template"] == {"name": name, "source": template.source}
    assert list(plans.plans["configurations"]) == ["3d_fullres"]
    assert len(plans.foreground_intensity_properties_per_channel) == channels
    chosen = plans.get_configuration("3d_fullres")
    assert list(chosen.patch_size) == template.patch_size and chosen.batch_size == template.batch_size
    assert list(chosen.spacing) == template.spacing and chosen.data_identifier == f"{plans_file.stem}_3d_fullres"
    assert chosen.normalization_schemes == ["ZScoreNormalization"] * channels
    outputs = outputs_for_a_smaller_patch(chosen, channels)
    assert len(outputs) == len(template.arch_kwargs["strides"]) - 1


def outputs_for_a_smaller_patch(configuration: ConfigurationManager, channels: int) -> list[torch.Tensor]:
    """Logits of the network that nnU-Net builds, for half the patch: 128 x 128 x 128 would take gigabytes."""
    kwargs = configuration.network_arch_init_kwargs
    total = np.prod(kwargs["strides"], axis=0)
    patch = [size // 2 if size // 2 % t == 0 else size for size, t in zip(configuration.patch_size, total, strict=True)]
    if "patch_size" in kwargs:
        kwargs = {**kwargs, "patch_size": patch}
    needed = configuration.network_arch_init_kwargs_req_import
    network = get_network_from_plans(
        configuration.network_arch_class_name, kwargs, needed, channels, 3, allow_init=False, deep_supervision=True
    )
    with torch.no_grad():
        outputs = network(torch.rand(1, channels, *patch))
    assert tuple(outputs[0].shape) == (1, 3, *patch) and all(output.isfinite().all() for output in outputs)
    return outputs


@pytest.mark.parametrize("name", ["brats_published", "isles22_published"])
def test_published_templates_contain_the_published_form(name: str) -> None:
    template = load_template(name)
    expected = {**variant_arguments(name, template.patch_size), "dropout": 0.1}
    assert template.arch_kwargs == json.loads(json.dumps(expected))


@pytest.mark.parametrize("name", ["brats_fast", "isles22_fast", "hippocampus", "demo"])
def test_the_other_templates_contain_the_default_form(name: str) -> None:
    arch_kwargs = load_template(name).arch_kwargs
    assert default_form(len(arch_kwargs["strides"])).items() <= arch_kwargs.items()


@pytest.mark.parametrize(
    ("name", "channels", "shape", "mm", "reason"),
    [
        ("brats_published", 3, (140, 171, 137), 1.0, "made for images of 4 channels, these have 3"),
        ("isles22_published", 2, (68, 88, 72), 2.0, "made for images of 3 channels, these have 2"),
        ("hippocampus", 1, (1, 64, 64), 1.0, r"3D images, these are 2D \(1 x 64 x 64 voxels\)"),
        ("brats_fast", 2, (36, 50, 35), 4.0, r"voxels of 4 x 4 x 4 mm would be resampled to 1 x 1 x 1 mm"),
        ("isles22_fast", 2, (300, 300, 300), 0.5, r"resampled to 2 x 2 x 2 mm, by more than a factor of 3"),
        ("brats_fast", 1, (36, 50, 35), 1.0, r"its patch of 128 x 128 x 128 mm is much larger than .* 36 x 50 x 35"),
    ],
)
def test_a_template_for_other_data_is_refused(
    folders: Path, name: str, channels: int, shape: tuple, mm: float, reason: str
) -> None:
    raw_data(folders, channels)
    write_fingerprint(folders, channels, shape, mm)
    with pytest.raises(UserError, match=rf"template {name} does not fit {NAME}: .*{reason}.*--template list"):
        plan_dataset(7, template=name, preprocess=False)
    assert written(folders) == ["dataset_fingerprint.json"]


def test_a_configuration_that_no_template_plans_is_refused(folders: Path) -> None:
    raw_data(folders, 4)
    with pytest.raises(UserError, match="a template plans only 3d_fullres, not 2d: change -c"):
        plan_dataset(7, ["2d"], template="demo")
    assert written(folders) == []


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((1, 40, 40), "these are 2D"), ((20, 28, 24), "much larger than the images of 20 x 28 x 24 mm")],
)
def test_without_a_fingerprint_the_images_tell_and_none_is_written(folders: Path, shape: tuple, reason: str) -> None:
    raw_data(folders, 1, shape)
    with pytest.raises(UserError, match=reason):
        plan_dataset(7, template="brats_fast")
    assert written(folders) == []


def test_an_unknown_template_is_refused_and_all_are_listed(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"no template brats: .*one of brats_fast, brats_published.*--template list"):
        plan_dataset(7, template="brats")
    with pytest.raises(SystemExit) as end:
        cli.main(["plan", "--template", "list"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert all(f"{name}\n    {source}\n" in out for name, source in template_sources().items())


@pytest.mark.parametrize("option", [["--variant", "swin"], ["--size", "L"], ["--gpu-memory-target", "8"]])
def test_what_a_template_sets_is_refused_as_an_option(capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["plan", "-d", "7", "--template", "demo", *option])
    assert end.value.code == 2
    assert f"error: argument {option[0]}: not allowed with argument --template" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"sauce": "x"}, "has an unknown key 'sauce'"),
        ({"source": ""}, "source must be one line of text"),
        ({"channels": 0}, "channels must be a number of channels, or null for any, not 0"),
        ({"batch_size": 2.5}, "batch_size must be a number of patches, not 2.5"),
        ({"patch_size": [32, 40]}, "patch_size must be three numbers of voxels"),
        ({"patch_size": [32, 40, 30]}, r"patch_size \[32, 40, 30\] must be multiples of \[8, 8, 8\]"),
        ({"spacing": [1, 1, -1]}, "spacing must be three voxel sizes in mm"),
        ({"spacing": [1, 1, 5]}, r"spacing \[1, 1, 5\] must begin with the coarsest axis"),
        ({"arch_kwargs": []}, "arch_kwargs must map names to values"),
        ({"arch_kwargs": {"depht": 1}}, "no network can be built from arch_kwargs: .*depht"),
        (
            {"arch_kwargs": {"features_per_stage": [8 * 10**18, 8], "strides": [[1] * 3, [2] * 3]}},
            "no network can be built from arch_kwargs: ",
        ),
        (
            {"arch_kwargs": {"features_per_stage": [8 * 10**30, 8], "strides": [[1] * 3, [2] * 3]}},
            "no network can be built from arch_kwargs: ",
        ),
        (
            {"arch_kwargs": {**variant_arguments("swin", (64, 64, 64))}, "patch_size": [32, 64, 64]},
            r"patch_size is \[32, 64, 64\], but arch_kwargs.patch_size is \[64, 64, 64\]",
        ),
    ],
)
def test_an_impossible_file_is_refused_by_name(tmp_path: Path, change: dict, problem: str) -> None:
    content = {key: value for key, value in vars(load_template("demo")).items() if key != "name"}
    file = tmp_path / "mine.json"
    write_json(file, {**content, **change})
    with pytest.raises(UserError, match=rf"template {file}:? {problem}"):
        load_template(str(file))
    del content["spacing"]
    write_json(file, content)
    with pytest.raises(
        UserError, match=rf"template {file} lacks 'spacing': it must have exactly source, channels, spacing"
    ):
        load_template(str(file))


def test_a_file_of_the_user_is_applied_to_the_plans_and_the_rest_stays(tmp_path: Path) -> None:
    content = {**vars(load_template("demo")), "batch_size": 5}
    write_json(tmp_path / "mine.json", {key: value for key, value in content.items() if key != "name"})
    template = load_template(str(tmp_path / "mine.json"))
    planned = {"batch_size": 2, "patch_size": [8, 8, 8], "architecture": {}, "normalization_schemes": ["CT"]}
    plans = {"dataset_name": NAME, "configurations": {"2d": {}, "3d_fullres": planned}}
    result = apply_template(plans, template)
    assert result["template"]["name"] == "mine" and result["dataset_name"] == NAME
    settings = result["configurations"]["3d_fullres"]
    assert (settings["batch_size"], settings["normalization_schemes"]) == (5, ["CT"])
    assert settings["architecture"]["arch_kwargs"] == template.arch_kwargs
    assert planned["batch_size"] == 2 and set(plans["configurations"]) == {"2d", "3d_fullres"}
