"""Run the stock commands in their own folders and read the results."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
import torch
from forked_commands import ForkedCommands

from factorizer_nnunet.nnunet.environment import environment_variables

BLOBS, REGIONS, IGNORED = "Dataset501_Blobs", "Dataset502_Regions", "Dataset503_Ignored"
PLANS = "nnUNetFactorizerPlans"
EPOCHS = 2
TRAINER = f"nnUNetTrainerFactorizer_{EPOCHS}epochs_2iters"
RESENC_PLANS = "nnUNetResEncUNetMPlans"
RESUMED_EPOCHS = 5
RESUMED_TRAINER = f"nnUNetTrainerFactorizer_{RESUMED_EPOCHS}epochs_2iters_lr1e-3"
STOPPED_TRAINER = "nnUNetTrainerFactorizer_2epochs_40iters"
# A learning rate that changes no weight, so that the result shows what was loaded.
FROZEN_TRAINER = "nnUNetTrainerFactorizer_1epochs_1iters_lr1e-30"
ON_CPU = ("-device", "cpu")
# No worker processes: each would import nnU-Net again. Its planners fail without an augmentation process.
IN_ONE_PROCESS = ("-npp", "0", "-nps", "0")
QUICK_FINGERPRINT = Path(__file__).resolve().parents[1] / "quick_fingerprint"  # see sitecustomize.py there
AUGMENT_IN_ONE_PROCESS = {"nnUNet_n_proc_DA": "0"}
_SETTINGS = {
    "nnUNet_n_proc_DA": "1",
    "nnUNet_def_n_proc": "1",
    "nnUNet_compile": "f",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(QUICK_FINGERPRINT),
    "OMP_WAIT_POLICY": "PASSIVE",  # nnU-Net takes all cores for each command; waiting threads must not spin
}


@dataclass(frozen=True)
class Workspace:
    """nnU-Net's three folders below ``root`` and the environment that names them."""

    root: Path
    env: dict[str, str]

    @classmethod
    def below(cls, root: Path) -> Workspace:
        own = environment_variables(root, {})
        workspace = cls(root, {**_without_nnunet(os.environ), **_SETTINGS, **own})
        for folder in (workspace.raw, workspace.preprocessed, workspace.results):
            folder.mkdir(parents=True)
        return workspace

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw"

    @property
    def preprocessed(self) -> Path:
        return self.root / "nnUNet_preprocessed"

    @property
    def results(self) -> Path:
        return self.root / "nnUNet_results"

    @property
    def unseen(self) -> Path:
        """Images to predict."""
        return self.raw / BLOBS / "imagesTs"

    def plans_file(self, plans: str = PLANS, dataset: str = BLOBS) -> Path:
        return self.preprocessed / dataset / f"{plans}.json"

    def model(self, configuration: str, *, trainer: str = TRAINER, plans: str = PLANS, dataset: str = BLOBS) -> Path:
        """The folder of a model's folds."""
        return self.results / dataset / f"{trainer}__{plans}__{configuration}"

    def run(self, command: str, *arguments: object, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run an installed command; with ``check`` its failure fails the test and shows the end of its output."""
        done = _commands().run(command_line(command, *arguments), {**self.env, **env}, timeout=1800)
        if check:
            output = (done.stdout + done.stderr)[-3000:]
            assert done.returncode == 0, f"{command} {arguments} ended with {done.returncode}:\n{output}"
        return done

    def train(
        self,
        configuration: str,
        fold: int | str,
        *options: object,
        trainer: str = TRAINER,
        plans: str = PLANS,
        dataset: str = BLOBS,
        check: bool = True,
        **env: str,
    ) -> subprocess.CompletedProcess[str]:
        arguments = train_arguments(configuration, fold, *options, trainer=trainer, plans=plans, dataset=dataset)
        return self.run("nnUNetv2_train", *arguments, check=check, **AUGMENT_IN_ONE_PROCESS, **env)

    def predict(
        self,
        out: str,
        configuration: str,
        folds: Iterable[int | str],
        *options: object,
        trainer: str = TRAINER,
        plans: str = PLANS,
        dataset: str = BLOBS,
        **env: str,
    ) -> Path:
        """Predict the unseen cases into the folder ``out`` of the workspace, which is returned."""
        folder = self.root / out
        arguments = ["-i", self.unseen, "-o", folder, "-d", dataset, "-c", configuration, "-f", *folds]
        self.run("nnUNetv2_predict", *arguments, "-tr", trainer, "-p", plans, *ON_CPU, *options, **env)
        return folder


@functools.cache
def _commands() -> ForkedCommands:
    """Runs the commands of all workspaces of this process."""
    return ForkedCommands({**_without_nnunet(os.environ), **_SETTINGS})


def _without_nnunet(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.startswith("nnUNet_")}


def command_line(command: str, *arguments: object) -> list[str]:
    """An installed command of this environment, wherever PATH points."""
    return [str(Path(sysconfig.get_path("scripts")) / command), *(str(argument) for argument in arguments)]


def train_arguments(
    configuration: str,
    fold: int | str,
    *options: object,
    trainer: str = TRAINER,
    plans: str = PLANS,
    dataset: str = BLOBS,
) -> list[object]:
    return [dataset, configuration, fold, "-tr", trainer, "-p", plans, *ON_CPU, *options]


def edit_json(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def shrink_plans(plans: dict) -> None:
    """Small patches and a narrow network of three stages, edited in the plans file as a user may."""
    for settings in plans["configurations"].values():
        if "architecture" not in settings:
            continue
        settings["batch_size"] = 2
        settings["patch_size"] = [12, 24, 24][-len(settings["patch_size"]) :]
        kwargs = settings["architecture"]["arch_kwargs"]
        for key, value in kwargs.items():
            if isinstance(value, list) and key != "shifts":
                kwargs[key] = value[:2] if key.endswith("_decoder") else value[:3]
        kwargs["features_per_stage"] = [8, 16, 16]
        if "n_stages" in kwargs:
            kwargs["n_stages"] = 3


def add_cascade(plans: dict) -> None:
    """3d_lowres and 3d_cascade_fullres, which nnU-Net plans only for images larger than its patch."""
    configurations = plans["configurations"]
    fullres = configurations["3d_fullres"]
    configurations["3d_lowres"] = {
        **fullres,
        "data_identifier": f"{PLANS}_3d_lowres",
        "spacing": [1.4 * spacing for spacing in fullres["spacing"]],
        "next_stage": "3d_cascade_fullres",
    }
    configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}


def logged_epochs(fold: Path) -> list[int]:
    """Epochs that were trained according to the logs of a fold, in the order of the logs."""
    lines = [line for log in sorted(fold.glob("training_log_*.txt")) for line in log.read_text().splitlines()]
    heads = [line.split(": Epoch ")[1] for line in lines if ": Epoch " in line]
    return [int(head) for head in heads if head.strip().isdigit()]


def checkpoint(fold: Path, name: str = "checkpoint_final.pth") -> dict:
    return torch.load(fold / name, map_location="cpu", weights_only=False)


def read_labels(path: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def read_probabilities(folder: Path, case: str) -> np.ndarray:
    """(classes, z, y, x), float32 even if nnU-Net stores float16."""
    return np.load(folder / f"{case}.npz")["probabilities"].astype(np.float32)


def assert_predicted(folder: Path, images: Path, cases: Iterable[str], labels: set[int]) -> None:
    """Check that each case has a prediction on the grid of its image, with declared labels only."""
    assert {path.name.removesuffix(".nii.gz") for path in folder.glob("*.nii.gz")} == set(cases)
    for case in cases:
        prediction = SimpleITK.ReadImage(str(folder / f"{case}.nii.gz"))
        image = SimpleITK.ReadImage(str(images / f"{case}_0000.nii.gz"))
        assert prediction.GetSize() == image.GetSize()
        for grid in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(prediction, grid)(), getattr(image, grid)(), atol=1e-5)
        assert set(np.unique(SimpleITK.GetArrayFromImage(prediction))) <= labels


def assert_close_predictions(one: Path, other: Path, cases: Iterable[str]) -> None:
    """Check that labels and probabilities of several folds agree but for the half precision of nnU-Net's sums.

    It is coarse in the corners of an image, where the weights of all tiles are near 0; networks that are hardly trained
    have nearly equal probabilities there, so that labels must be equal only where the difference decides nothing.
    """
    for case in cases:
        labels = [read_labels(folder / f"{case}.nii.gz") for folder in (one, other)]
        probabilities = [read_probabilities(folder, case) for folder in (one, other)]
        difference = np.abs(probabilities[0] - probabilities[1]).max(axis=0)
        assert np.median(difference) < 1e-4
        assert (difference > 1e-3).mean() < 0.1 and (difference > 0.03).mean() < 0.02
        second, first = np.sort(probabilities[0], axis=0)[-2:]
        differs = labels[0] != labels[1]
        assert differs.mean() < 0.02 and not differs[first - second > 2 * difference + 1e-3].any()


def assert_same_predictions(one: Path, other: Path, cases: Iterable[str]) -> None:
    """Check that labels and probabilities are bitwise equal."""
    for case in cases:
        np.testing.assert_array_equal(read_labels(one / f"{case}.nii.gz"), read_labels(other / f"{case}.nii.gz"))
        np.testing.assert_array_equal(read_probabilities(one, case), read_probabilities(other, case))
