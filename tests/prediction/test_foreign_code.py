"""Model folders from anywhere: what their plans and checkpoints name is not executed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import run_predict, settings

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.explain.case import explain_case
from factorizer_nnunet.tuning.tune import TuningRequest, tune

FULLRES = ("configurations", "3d_fullres")
ARCHITECTURE = (*FULLRES, "architecture")
# Where plans name code, and a name that nnU-Net would import and call.
PLACES: dict[str, tuple[tuple, Any, str]] = {
    "a function as network": ((*ARCHITECTURE, "network_class_name"), "torch.hub.load", "expected a class of fac"),
    "a module of the user's": ((*ARCHITECTURE, "network_class_name"), "foreign_module.Net", "expected a class of fac"),
    "our own command": (
        (*ARCHITECTURE, "network_class_name"),
        "factorizer_nnunet.__main__",
        "expected a class of factorizer_nnunet.network",
    ),
    "a detour through a network's module": (
        (*ARCHITECTURE, "network_class_name"),
        "dynamic_network_architectures.architectures.unet.nn.Linear",
        "expected a class of fac",
    ),
    "a function as an argument": ((*ARCHITECTURE, "arch_kwargs", "conv_op"), "torch.hub.load", "expected a class of t"),
    "a function of torch.nn": (
        (*ARCHITECTURE, "arch_kwargs", "nonlin"),
        "torch.nn.functional.relu",
        "expected a class of t",
    ),
    "an argument that is missing": ((*ARCHITECTURE, "_kw_requires_import"), ["no_such"], "names 'no_such'"),
    "a reader": (("image_reader_writer",), "isfile", "expected a BaseReaderWriter"),
    "a label manager": (("label_manager",), "recursive_find_python_class", "expected a LabelManager"),
    "a preprocessor": ((*FULLRES, "preprocessor_name"), "shutil", "expected a DefaultPreprocessor"),
    "a normalization": ((*FULLRES, "normalization_schemes"), ["ABC", "ABC"], "expected a ImageNormalization"),
    "a resampling": ((*FULLRES, "resampling_fn_data"), "recursive_find_python_class", "expected a resampling function"),
    "no text": ((*FULLRES, "resampling_fn_seg"), 3, "expected a resampling function"),
}


def with_foreign_module(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    executed = root / "executed"
    (root / "foreign_module.py").write_text(
        f"open({str(executed)!r}, 'w').close()\nfrom dynamic_network_architectures.architectures.unet import *\n"
        "class Net(PlainConvUNet): pass\n"
    )
    (root / "hubconf.py").write_text(f"open({str(executed)!r}, 'w').close()\ndef net(**arguments): pass\n")
    monkeypatch.syspath_prepend(root)
    return executed


def put(content: Any, place: tuple, value: Any) -> None:
    for key in place[:-1]:
        content = content[key]
    content[place[-1]] = value


def tuned(model: Path, root: Path) -> None:
    tune(TuningRequest(model=model, folds=("0",), device="cpu"))


@pytest.mark.parametrize("what", PLACES)
def test_plans_may_only_name_networks(root: Path, model: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    executed = with_foreign_module(root, monkeypatch)
    place, value, message = PLACES[what]
    plans = json.loads((model / "plans.json").read_text())
    put(plans, ARCHITECTURE, settings(3)["architecture"])  # a U-Net's, which names classes of torch
    put(plans, place, value)
    (model / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(UserError, match=f"plans.json.*{message}"):
        run_predict(root, model)
    assert not executed.exists() and not (root / "out").exists()


@pytest.mark.parametrize(
    "command",
    [
        lambda model, root: explain_case(model, [root / "images" / f"a_000{n}.nii.gz" for n in (0, 1)]),
        tuned,
    ],
)
def test_explain_and_tuning_refuse_the_same(
    root: Path, model: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[[Path, Path], object]
) -> None:
    executed = with_foreign_module(root, monkeypatch)
    plans = json.loads((model / "plans.json").read_text())
    hub = {"repo_or_dir": str(root), "model": "net", "source": "local", "trust_repo": True}
    put(plans, ARCHITECTURE, {"network_class_name": "torch.hub.load", "arch_kwargs": hub, "_kw_requires_import": []})
    (model / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(UserError, match=r"network_class_name is 'torch\.hub\.load'; expected a class"):
        command(model, root)
    assert not executed.exists()


def test_trusted_plans_may_name_others(root: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executed = with_foreign_module(root, monkeypatch)
    plans = json.loads((model / "plans.json").read_text())
    put(plans, ARCHITECTURE, {**settings(3)["architecture"], "network_class_name": "foreign_module.Net"})
    (model / "plans.json").write_text(json.dumps(plans))
    file = model / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file, weights_only=False), "trainer_name": "nnUNetTrainer"}, file)
    with pytest.raises(UserError, match="does not fit the network"):  # it was built, and is another one
        run_predict(root, model, trusted=True)
    assert executed.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: "text", "is str, not a tensor"),
        (lambda weight: weight.to(torch.complex64), "contains complex64 values"),
        (lambda weight: weight.to(torch.int64), "contains torch.int64 values where the network has torch.float32"),
        (lambda weight: weight.to(torch.uint8), "contains uint8 values"),
        (lambda weight: torch.zeros(1).expand(10**9, 10**9), "but fewer values"),
        (lambda weight: weight.to_sparse(), "is not a dense tensor"),
        (lambda weight: weight[..., :1], "does not fit the network"),
    ],
)
def test_weights_are_real_tensors_of_the_networks_shapes(
    root: Path, model: Path, change: Callable[[torch.Tensor], object], message: str
) -> None:
    file = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    name = next(name for name, weight in content["network_weights"].items() if weight.ndim > 2)
    content["network_weights"][name] = change(content["network_weights"][name])
    torch.save(content, file)
    with pytest.raises(UserError, match=message):
        run_predict(root, model)


@pytest.mark.parametrize("name", ["load_pickle", "DistributedDataParallel", "../trainer", "nnUNetTrainer.x"])
def test_a_trainer_is_a_trainer(root: Path, model: Path, name: str) -> None:
    file = model / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file, weights_only=False), "trainer_name": name}, file)
    with pytest.raises(UserError, match=r"trainer_name .* (name|names) |not known here"):
        run_predict(root, model)


@pytest.mark.parametrize(
    ("file", "place", "value", "message"),
    [
        ("dataset.json", ("file_ending",), "/../../escaped.nii.gz", "file_ending .* must be an ending"),
        ("dataset.json", ("labels", "core"), 7, "must be 1, 2, … without gaps"),
        ("plans.json", (*FULLRES, "patch_size"), [10**6, 10**6, 10**6], "patch_size .* at most"),
        ("plans.json", (*ARCHITECTURE, "arch_kwargs", "n_stages"), 10**9, "n_stages 1000000000, which must be at"),
        ("plans.json", ("transpose_forward",), [0, 0, 0], "must be an order of the axes"),
    ],
)
def test_values_that_would_mislead_are_refused(
    root: Path, model: Path, file: str, place: tuple, value: Any, message: str
) -> None:
    content = json.loads((model / file).read_text())
    put(content, place, value)
    (model / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"{file}.*{message}"):
        run_predict(root, model)
    assert not (root / "out").exists()
