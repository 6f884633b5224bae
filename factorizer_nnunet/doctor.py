"""Checks of an installation, each with advice how to fix it.

Every check is a function that returns a :class:`Check`. They import torch and nnU-Net themselves, because a broken
import is one of the problems to find; :func:`run_checks` reports an exception as a failed check.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.environment import (
    AUGMENTATION_VARIABLE,
    COMPILE_VARIABLE,
    EXT_TRAINER_VARIABLE,
    FOLDER_VARIABLES,
    STEP_VARIABLE,
    Augmentation,
    StepSetting,
    augmentation_setting,
    ext_trainer_folder,
    folder_problem,
    step_setting,
)
from factorizer_nnunet.nnunet.names import TRAINER

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "factorizer_nnunet",
    "nnunetv2",
    "torch",
    "torchvision",
    "timm",
    "batchgenerators",
    "batchgeneratorsv2",
    "dynamic_network_architectures",
    "SimpleITK",
    "numpy",
)
MIN_PYTHON = (3, 10)
FREE_GB_WARN = 20.0  # preprocessed data and checkpoints of one mid-sized data set
FREE_GB_FAIL = 1.0
SET_TRAINER_FOLDER = 'run: eval "$(factorizer-nnunet env)"'
SET_FOLDERS = 'run: eval "$(factorizer-nnunet env --root DIR)", with the folder that shall contain nnU-Net\'s three'
REINSTALL = "install again into an empty virtual environment: pip install . in the checkout of factorizer_nnunet"
MATCH_TORCH = "install both from one index: pip install --force-reinstall torch torchvision"


class Status(str, Enum):
    """Result of a check; only ``FAIL`` makes the exit status 1."""

    OK = "ok"
    TO_DO = "todo"  # not set up yet, as after a new installation
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One line of the report; ``fix`` says what to do, and is empty if nothing is wrong."""

    name: str
    status: Status
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Probe:
    """A check to run, and what to do if its function itself fails."""

    name: str
    run: Callable[[], Check]
    fix: str


def all_probes() -> list[Probe]:
    """All checks, in the order in which a user would need them: packages, device, folders, trainer, network."""
    return [
        Probe("Python", partial(check_python, sys.version_info[:2]), REINSTALL),
        *(Probe(name, partial(check_package, name), REINSTALL) for name in PACKAGES),
        Probe("torch and torchvision", check_torchvision, MATCH_TORCH),
        Probe("GPU", check_gpu, REINSTALL),
        Probe("torch.compile", check_compile, "switch it off: export nnUNet_compile=f"),
        Probe(AUGMENTATION_VARIABLE, check_augmentation, f"run: unset {AUGMENTATION_VARIABLE}"),
        Probe(STEP_VARIABLE, check_step, f"run: unset {STEP_VARIABLE}"),
        *(
            Probe(name, partial(check_folder, name), f"set {name} to a folder on a working disk")
            for name in FOLDER_VARIABLES
        ),
        Probe(EXT_TRAINER_VARIABLE, check_ext_trainer, SET_TRAINER_FOLDER),
        Probe("trainer", check_trainer, f"fix the lines above; then {SET_TRAINER_FOLDER}"),
        Probe("network", check_network, REINSTALL),
    ]


def run_checks(probes: list[Probe]) -> Iterator[Check]:
    """Run the probes one by one; an exception in one becomes a failed check."""
    for probe in probes:
        try:
            with warnings.catch_warnings():
                # Deprecations within torch and nnU-Net do not concern the user; CUDA's own warnings do.
                warnings.simplefilter("ignore", category=FutureWarning)
                warnings.simplefilter("ignore", category=DeprecationWarning)
                check = probe.run()
        except (Exception, SystemExit) as error:  # a broken import may raise anything
            check = Check(probe.name, Status.FAIL, _one_line(error), probe.fix)
        yield check


def _one_line(error: BaseException) -> str:
    """Type and first words of an exception; those of nnU-Net and torch may fill a screen."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", width=200, placeholder=" ...")


def check_python(version: tuple[int, int]) -> Check:
    """Check the interpreter's version (major, minor)."""
    detail = f"{platform.python_version()} in {sys.prefix}"
    if version < MIN_PYTHON:
        return Check("Python", Status.FAIL, detail, f"use Python {'.'.join(map(str, MIN_PYTHON))} or later")
    return Check("Python", Status.OK, detail)


def requirements_on(package: str) -> dict[str, Requirement]:
    """The requirements of installed :data:`PACKAGES` on ``package``, by the package that requires it."""
    asked = {}
    for dependent in PACKAGES:
        try:
            lines = metadata.requires(dependent) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and canonicalize_name(requirement.name) == canonicalize_name(package):
                asked[dependent] = requirement
    return asked


def check_package(name: str, required: Mapping[str, Requirement] | None = None) -> Check:
    """Check that a package is installed in a version that others accept.

    Args:
        name: of the distribution.
        required: what others require of it; None means :func:`requirements_on`.
    """
    required = requirements_on(name) if required is None else required
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, Status.FAIL, "not installed", REINSTALL)
    unmet = {by: need for by, need in required.items() if not need.specifier.contains(version, prereleases=True)}
    if unmet:
        wishes = ", ".join(f"{by} asks for {need.name}{need.specifier}" for by, need in unmet.items())
        install = " ".join(f'"{need.name}{need.specifier}"' for need in unmet.values())
        return Check(name, Status.FAIL, f"{version}, but {wishes}", f"pip install {install}")
    return Check(name, Status.OK, version)


def check_torchvision() -> Check:
    """Check that torchvision's compiled operators load into this torch.

    A CPU build of one and a CUDA build of the other have matching versions, yet fail here or at ``import timm``, and
    then nnU-Net cannot import any trainer.
    """
    import torch

    try:
        import timm  # noqa: F401 - nnU-Net's networks import it
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except Exception as error:
        detail = f"torch {torch.__version__}: {_one_line(error)}"
        return Check("torch and torchvision", Status.FAIL, detail, MATCH_TORCH)
    return Check("torch and torchvision", Status.OK, f"{torch.__version__} and {torchvision.__version__} match")


def best_device() -> torch.device:
    """The best device that nnU-Net could use: CUDA, then MPS, then the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def check_gpu() -> Check:
    """Check which accelerator torch sees; none is a warning only, since a Factorizer also trains on a CPU."""
    import torch

    device = best_device()
    if device.type == "cuda":
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return Check("GPU", Status.OK, ", ".join(f"{card.name} ({card.total_memory / 1e9:.0f} GB)" for card in cards))
    if device.type == "mps":
        return Check("GPU", Status.OK, "Apple MPS; give the nnU-Net commands -device mps")
    if torch.version.cuda is None:
        detail, fix = (
            "none: this torch was built without CUDA",
            "if there is an NVIDIA GPU, install a CUDA torch",
        )
    else:
        detail, fix = f"none seen by torch for CUDA {torch.version.cuda}", "if there is a GPU, see nvidia-smi"
    return Check("GPU", Status.WARN, detail, f"{fix}; without one, give the nnU-Net commands -device cpu")


def check_compile() -> Check:
    """Check that ``torch.compile`` works where nnU-Net uses it: on CUDA, unless ``nnUNet_compile`` switches it off."""
    import torch

    name = "torch.compile"
    device = best_device()
    setting = os.environ.get(COMPILE_VARIABLE)
    if device.type != "cuda" or os.name == "nt":
        return Check(
            name, Status.OK, f"not used: nnU-Net compiles only on CUDA, and not on Windows; this is {device.type}"
        )
    if setting is not None and setting.lower() not in ("true", "1", "t"):
        return Check(name, Status.OK, f"switched off by nnUNet_compile={setting}")
    x = torch.arange(8.0, device=device)
    torch.testing.assert_close(torch.compile(lambda t: t * 2 + 1)(x), x * 2 + 1)
    return Check(name, Status.OK, f"works; nnUNet_compile is {'not set' if setting is None else setting}")


def check_augmentation() -> Check:
    """Say where training samples are augmented; a wrong value raises."""
    setting = augmentation_setting()
    if not os.environ.get(AUGMENTATION_VARIABLE, "").strip():
        detail = "not set: the workers augment, as in nnU-Net; auto measures whether the training device should"
        return Check(AUGMENTATION_VARIABLE, Status.OK, detail)
    where = {
        Augmentation.AUTO: "auto: the workers augment at first; if the training then waits for its data for more than "
        "a fifth of the time, the training device augments, as long as that is faster; this was not measured on a GPU "
        "yet",
        Augmentation.DEVICE: "device: workers read, the training device augments if it has the memory, which plan "
        "counts and plan --show tells; this was not measured on a GPU yet",
        Augmentation.WORKERS: "workers: as in nnU-Net",
    }
    return Check(AUGMENTATION_VARIABLE, Status.OK, where[setting])


def check_step() -> Check:
    """Say how a training step is computed; a wrong value raises."""
    setting = step_setting()
    how = {
        StepSetting.PLAIN: "plain: nnU-Net's training step",
        StepSetting.FUSED: "fused: one gradient clip and a fused optimizer; not measured on a GPU yet",
        StepSetting.INLINED: "inlined: as fused, and compiled code launches our kernels; not measured on a GPU yet",
        StepSetting.GRAPHS: "graphs: as fused, and the network as CUDA graphs; not measured on a GPU yet",
    }
    return Check(STEP_VARIABLE, Status.OK, how[setting])


def check_folder(variable: str) -> Check:
    """Check that a data folder is set, exists, is writable, and has space."""
    # Training writes everywhere except in the raw data, which may well be on a read-only share.
    if not os.environ.get(variable):
        return Check(variable, Status.TO_DO, "not set", SET_FOLDERS)
    problem = folder_problem(variable, writable=variable != "nnUNet_raw")
    if problem is not None:
        return Check(variable, Status.FAIL, problem.problem, problem.fix)
    folder = os.environ[variable]
    if not os.access(folder, os.W_OK):
        return Check(variable, Status.WARN, f"{folder} is read-only", "fine unless you convert data or run the demo")
    return check_free_space(variable, folder, shutil.disk_usage(folder).free)


def check_free_space(variable: str, folder: str, free_bytes: int) -> Check:
    """Check that ``free_bytes`` on the disk of ``folder`` are enough to work with."""
    free_gb = free_bytes / 1e9
    detail = f"{folder}, {free_gb:.1f} GB free"
    fix = f"free space there, or set {variable} to a folder on a larger disk"
    if free_gb < FREE_GB_FAIL:
        return Check(variable, Status.FAIL, f"{detail}, less than {FREE_GB_FAIL:.0f} GB", fix)
    if free_gb < FREE_GB_WARN:
        return Check(variable, Status.WARN, f"{detail}, less than {FREE_GB_WARN:.0f} GB", fix)
    return Check(variable, Status.OK, detail)


def check_ext_trainer() -> Check:
    """Check that ``nnUNet_extTrainer`` contains the folder of our trainer shim."""
    value = os.environ.get(EXT_TRAINER_VARIABLE, "")
    if not value.strip():
        return Check(EXT_TRAINER_VARIABLE, Status.TO_DO, "not set", SET_TRAINER_FOLDER)
    folders = [os.path.realpath(folder) for folder in value.split(os.pathsep) if folder.strip()]
    if str(ext_trainer_folder()) not in folders:
        return Check(EXT_TRAINER_VARIABLE, Status.FAIL, f"{value} lacks {ext_trainer_folder()}", SET_TRAINER_FOLDER)
    return Check(EXT_TRAINER_VARIABLE, Status.OK, value)


def check_trainer() -> Check:
    """Check that nnU-Net's own lookup finds our trainer, and not another of the same name, and that it would start."""
    if not os.environ.get(EXT_TRAINER_VARIABLE, "").strip():
        return Check(
            "trainer", Status.TO_DO, f"nnU-Net finds it once {EXT_TRAINER_VARIABLE} is set", SET_TRAINER_FOLDER
        )
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    with contextlib.redirect_stdout(io.StringIO()):  # the lookup prints every module that it visits
        trainer = recursive_find_trainer_class_by_name(TRAINER)
    # By module name: nnU-Net drops modules of external folders after the lookup, so their files are unknown.
    if not trainer.__module__.startswith("factorizer_nnunet."):
        folders = os.environ.get(EXT_TRAINER_VARIABLE)
        detail = f"another {TRAINER} comes first: module {trainer.__module__} of nnU-Net or of {folders}"
        fix = f"remove that module, or put {ext_trainer_folder()} first in {EXT_TRAINER_VARIABLE}"
        return Check("trainer", Status.FAIL, detail, fix)
    from factorizer_nnunet.training.checkpoints import minutes_between_checkpoints
    from factorizer_nnunet.training.variables import check_kernels

    try:
        check_kernels()
        minutes_between_checkpoints()
    except UserError as error:
        return Check("trainer", Status.FAIL, f"{TRAINER} refuses to start", str(error))
    return Check("trainer", Status.OK, f"{TRAINER} found by nnU-Net")


def check_network() -> Check:
    """Check that a tiny Factorizer runs on the device and returns finite numbers."""
    import torch

    from factorizer_nnunet.network import Factorizer

    device = best_device()
    network = Factorizer(1, 2, features_per_stage=(8, 16), strides=((1, 1, 1), (2, 2, 2))).to(device).eval()
    with torch.no_grad():
        logits = network(torch.rand(1, 1, 16, 16, 16, device=device))
    if logits.shape != (1, 2, 16, 16, 16) or not torch.isfinite(logits).all():
        return Check("network", Status.FAIL, f"wrong output of shape {tuple(logits.shape)} on {device}", REINSTALL)
    return Check("network", Status.OK, f"a small Factorizer runs on {device}")
