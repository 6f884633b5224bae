"""Fine-tune: plans, preprocessed data, a checkpoint to start from for each fold, and nnU-Net's training with ``--c``.

The start is what nnU-Net's trainer would save before its first epoch, with the adapted weights. So training is
nnU-Net's own command, is resumed by the same command, and has all weights: ``-pretrained_weights`` would leave out the
last layers.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from nnunetv2.run.run_training import get_trainer_from_args

from factorizer_nnunet.core.atomic_files import atomic_file
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.interrupts import terminable
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.processes import script, stop_groups
from factorizer_nnunet.finetuning.adoption import adopted_plans
from factorizer_nnunet.finetuning.preparation import Preparation
from factorizer_nnunet.nnunet.integrity import is_complete
from factorizer_nnunet.nnunet.model_folder import ALL_CASES, CHECKPOINT_LATEST, FoldFolder
from factorizer_nnunet.planning.dataset import plan_dataset
from factorizer_nnunet.planning.planner import nnUNetPlannerFactorizer

_GRACE_SECONDS = 60.0  # a training that is asked to end saves first


def make_ready(preparation: Preparation) -> None:
    """Write plans and preprocessed data, and a checkpoint to start from for each fold that has none.

    Raises:
        UserError: the data cannot be used, or something cannot be written.
    """
    plan_dataset(
        preparation.raw.name,
        [preparation.name.configuration],
        plans_name=preparation.name.plans,
        num_processes=preparation.request.num_processes,
        check_data=preparation.request.check_data,
        planner_class=_planner(preparation),
    )
    for fold in preparation.request.folds:
        if preparation.target.fold(fold).last_checkpoint() is None:
            _write_start(preparation, fold)


def train_command(preparation: Preparation, fold: str, option: str = "--c") -> tuple[str, ...]:
    """The command of nnU-Net that trains a fold, as a user would type it."""
    name, device = preparation.name, preparation.request.device
    options = ("-tr", name.trainer, "-p", name.plans, "-device", device, option)
    return ("nnUNetv2_train", str(preparation.raw.id), name.configuration, fold, *options)


def train(preparation: Preparation) -> Mapping[str, int]:
    """Train and validate all folds that are not done; returns the exit status of each fold that failed.

    Raises:
        KeyboardInterrupt: after the training has saved.
    """
    failed = {}
    with terminable():
        for fold, option in _left(preparation):
            if status := _run(train_command(preparation, fold, option)):
                failed[fold] = status
    return failed


def _left(preparation: Preparation) -> Iterator[tuple[str, str]]:
    """Each fold that is not done, with the option that continues it."""
    for name in preparation.request.folds:
        fold = preparation.target.fold(name)
        trained = is_complete(fold.checkpoint())
        if trained and (name == ALL_CASES or is_complete(fold.summary)):
            print(f"fold {name} is done")
        else:
            yield name, "--val" if trained else "--c"


def _run(command: Sequence[str]) -> int:
    print(f"\n$ {' '.join(command)}", flush=True)
    process = subprocess.Popen([script(command[0]), *command[1:]], start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        stop_groups([process], _GRACE_SECONDS)
        raise


def _planner(preparation: Preparation) -> type[nnUNetPlannerFactorizer]:
    """The planner that gives the model's settings to its plans, and keeps existing ones, which may have been edited."""

    class FinetuningPlanner(nnUNetPlannerFactorizer):
        def plan_experiment(self) -> dict[str, Any]:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints settings that the model's replace
                plans: dict[str, Any] = super().plan_experiment()
            print(f"Plans: {preparation.plans_file}", flush=True)
            return plans

        def save_plans(self, plans: dict[str, Any]) -> None:
            file = preparation.plans_file
            # nnU-Net returns this object as the plans, so it is changed in place.
            if file.is_file():
                kept = load_json_object(file, "Remove it to have it written again")
                plans.clear()
                plans.update(kept)
                return
            adopted = adopted_plans(
                plans,
                preparation.source,
                preparation.matched.channels,
                preparation.adoption,
                preparation.name.configuration,
                preparation.origin,
            )
            plans.clear()
            plans.update(adopted)
            super().save_plans(plans)

    FinetuningPlanner.__name__ = f"{nnUNetPlannerFactorizer.__name__}_finetuning"  # is stored in the plans
    return FinetuningPlanner


def _write_start(preparation: Preparation, fold: str) -> None:
    """Let nnU-Net's trainer save its state before the first epoch, with the adapted weights.

    Raises:
        UserError: the trainer refuses its data, or the file cannot be written.
    """
    name = preparation.name
    target: FoldFolder = preparation.target.fold(fold)
    with contextlib.redirect_stdout(io.StringIO()):  # what nnU-Net prints before each training
        trainer = get_trainer_from_args(
            preparation.raw.name,
            name.configuration,
            fold if fold == ALL_CASES else int(fold),
            name.trainer,
            name.plans,
            device=torch.device("cpu"),
        )
        trainer.initialize()
        network = getattr(trainer.network, "_orig_mod", trainer.network)  # if it is compiled
        network.load_state_dict(preparation.weights)
        trainer.current_epoch = -1  # nnU-Net saves the number of the next one
        try:
            with atomic_file(target.checkpoint(CHECKPOINT_LATEST)) as draft:
                trainer.save_checkpoint(str(draft))
        except (OSError, RuntimeError) as error:  # torch reports a full disk by the latter
            raise UserError(
                f"cannot write {target.checkpoint(CHECKPOINT_LATEST)}: {error}. Free disk space or fix permissions, "
                "then run the same command again"
            ) from error
