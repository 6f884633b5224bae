"""The commands of the demo, word for word as a user would run them, and the environment they need."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.processes import core_count, script
from factorizer_nnunet.demo.jobs import Job
from factorizer_nnunet.demo.progress import CaseCounter, EpochWatcher
from factorizer_nnunet.demo.workspace import CONFIGURATION, DATASET_ID, FOLDS, Workspace
from factorizer_nnunet.nnunet.environment import environment_variables
from factorizer_nnunet.nnunet.names import PLANS, TRAINER
from factorizer_nnunet.training.budget import budget_from_suffix


@dataclass(frozen=True)
class Machine:
    """Where the commands run: the device, how many of them at a time, and the threads of each."""

    device: str
    lanes: int
    threads: int


def this_machine(device: str) -> Machine:
    """Share the processor's cores among the folds, or give a GPU one command at a time."""
    cores = core_count()
    lanes = 1 if device != "cpu" else min(len(FOLDS), max(1, cores))
    return Machine(device=device, lanes=lanes, threads=max(1, cores // lanes))


def environment(workspace: Workspace, machine: Machine) -> dict[str, str]:
    """Return the variables for the stock commands, on top of the process's own."""
    return {
        **environment_variables(workspace.out),
        "nnUNet_n_proc_DA": "1" if machine.device == "cpu" else str(min(8, machine.threads)),
        "nnUNet_def_n_proc": "1",  # each worker of nnU-Net's pools imports PyTorch anew: not worth it for few patients
        "nnUNet_compile": "0",  # compiling takes longer than a training as short as this one
        "nnUNet_wandb_enabled": "0",
        "OMP_NUM_THREADS": str(machine.threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # nnU-Net takes all cores for each command; waiting threads must not spin
    }


def plan_job(workspace: Workspace, machine: Machine) -> Job:
    """Fingerprint and plan, with a template so small that a CPU trains it in minutes."""
    argv = [script("factorizer-nnunet"), "plan", "-d", str(DATASET_ID), "-c", CONFIGURATION, "--no-preprocess"]
    argv += ["--template", "demo", "--plans-name", PLANS]
    return Job(
        name="plan",
        argv=lambda: [*argv, "-np", str(machine.threads)],
        outputs=(workspace.plans_file,),
    )


def preprocess_job(workspace: Workspace, machine: Machine) -> Job:
    """Preprocess with the demo's plans."""
    argv = [script("nnUNetv2_preprocess"), "-d", str(DATASET_ID), "-plans_name", PLANS, "-c", CONFIGURATION]
    return Job(
        name="preprocess",
        argv=lambda: [*argv, "-np", str(machine.threads)],
        outputs=(workspace.preprocessed / f"{PLANS}_{CONFIGURATION}",),
    )


def train_job(workspace: Workspace, machine: Machine, fold: int) -> Job:
    """Train one fold, from its last checkpoint if an interrupted training left one."""
    trainer = workspace.arguments.trainer
    model = workspace.model(fold)

    def argv() -> list[str]:
        command = [script("nnUNetv2_train"), str(DATASET_ID), CONFIGURATION, str(fold)]
        command += ["-tr", trainer, "-p", PLANS, "-device", machine.device]
        return [*command, "--c"] if any(model.glob("checkpoint_*.pth")) else command

    return Job(
        name=f"train_fold_{fold}",
        argv=argv,
        outputs=(model / "checkpoint_final.pth", model / "validation" / "summary.json"),
        watch=EpochWatcher(fold, _epochs(trainer)),
    )


def predict_job(workspace: Workspace, machine: Machine, fold: int, held_out: int) -> Job:
    """Segment the held-out patients with one fold, keeping the probabilities for the ensemble."""
    final = workspace.prediction(fold)
    draft = _draft(final)

    def argv() -> list[str]:
        shutil.rmtree(draft, ignore_errors=True)
        command = [script("nnUNetv2_predict"), "-d", str(DATASET_ID), "-c", CONFIGURATION, "-f", str(fold)]
        command += ["-tr", workspace.arguments.trainer, "-p", PLANS, "-device", machine.device]
        command += ["-i", str(workspace.dataset / "imagesTs"), "-o", str(draft), "--save_probabilities"]
        # 0 workers: with few and small patients each worker would take longer to start than to work.
        return [*command, "-npp", "0", "-nps", "0"]

    return Job(
        name=f"predict_fold_{fold}",
        argv=argv,
        outputs=(final,),
        finish=lambda: _appear(draft, final),
        watch=CaseCounter(f"fold {fold}: predicting held-out patient", "^perform_everything_on_device: ", held_out),
        after=(f"train_fold_{fold}",),
    )


def ensemble_job(workspace: Workspace) -> Job:
    """Average the probabilities of the five folds."""
    draft = _draft(workspace.ensemble)

    def argv() -> list[str]:
        shutil.rmtree(draft, ignore_errors=True)
        folders = [str(workspace.prediction(fold)) for fold in FOLDS]
        return [script("nnUNetv2_ensemble"), "-i", *folders, "-o", str(draft), "-np", "1"]

    return Job(
        name="ensemble",
        argv=argv,
        outputs=(workspace.ensemble,),
        finish=lambda: _appear(draft, workspace.ensemble),
    )


def _epochs(trainer: str) -> int:
    epochs = budget_from_suffix(trainer.removeprefix(TRAINER)).epochs
    if epochs is None:
        raise ValueError(f"the demo's trainer names its epochs, {trainer} does not")
    return epochs


def _draft(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


def _appear(draft: Path, final: Path) -> None:
    shutil.rmtree(final, ignore_errors=True)  # of a run whose stamp is missing
    draft.rename(final)
