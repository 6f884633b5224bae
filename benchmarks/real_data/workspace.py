"""nnU-Net's folders of the study, and its commands in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.nnunet_commands import environment, run_command
from benchmarks.real_data.arms import UNET_PLANS, Arm
from benchmarks.real_data.data import DataSet, digest
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.processes import end_marked
from factorizer_nnunet.dataset_check.raw import check_raw_folder, check_voxels, report_warnings
from factorizer_nnunet.nnunet.environment import COMPILE_VARIABLE, create_folders
from factorizer_nnunet.nnunet.model_folder import FoldFolder, ModelFolder
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import SPLITS_FILE
from factorizer_nnunet.nnunet.plans import resolved_configuration

MARK = "FACTORIZER_REAL_DATA"  # in the environment of all commands, so that a killed study's are found
_PLAN = "nnUNetv2_plan_and_preprocess"
_CHECKPOINT_MINUTES = "2"
_OTHER_ROOT = "Use another --root"


@dataclass(frozen=True)
class Workspace:
    """The working folder of the study.

    Attributes:
        root: with nnU-Net's three folders.
        device: of trainings and predictions.
        threads: of each process.
    """

    root: Path
    device: str = "cpu"
    threads: int = 1

    def raw(self, data: DataSet) -> Path:
        """The raw data set."""
        return self.root / "nnUNet_raw" / data.folder

    def preprocessed(self, data: DataSet) -> Path:
        """The folder of its plans and preprocessed cases."""
        return self.root / "nnUNet_preprocessed" / data.folder

    def plans(self, data: DataSet, name: str = UNET_PLANS) -> Path:
        """A plans file."""
        return self.preprocessed(data) / f"{name}.json"

    def model(self, data: DataSet, model: ModelName) -> ModelFolder:
        """The folder of a model.

        Raises:
            UserError: the plans in its folder describe another network than the data set's plans now.
        """
        folder = ModelFolder(self.root / "nnUNet_results" / data.folder / model.folder)
        if folder.plans_file.is_file():
            files = (folder.plans_file, self.plans(data, model.plans))
            trained, planned = (
                resolved_configuration(load_json_object(file, _OTHER_ROOT), model.configuration, str(file))
                for file in files
            )
            if trained.get("architecture") != planned.get("architecture"):
                raise UserError(f"{folder.path} has another network than {files[1]}. {_OTHER_ROOT}")
        return folder

    def fold(self, data: DataSet, model: ModelName, fold: int) -> FoldFolder:
        """A fold of a model.

        Raises:
            UserError: as of ``model``.
        """
        return self.model(data, model).fold(fold)

    def environment(self, command: str) -> dict[str, str]:
        """Of a command. On the CPU, a training is one process, which also loads and augments."""
        values = {
            **environment(self.root, self.threads),
            MARK: str(self.root),
            "FACTORIZER_CHECKPOINT_MINUTES": _CHECKPOINT_MINUTES,
            "nnUNet_def_n_proc": "1",
        }
        if self.device == "cpu":
            values["nnUNet_n_proc_DA"] = "1" if command == _PLAN else "0"  # nnU-Net's planner takes no 0
            values[COMPILE_VARIABLE] = "f"
        else:
            del values["nnUNet_n_proc_DA"]  # nnU-Net's own choice
        return values

    def run(self, name: str, *arguments: object, log: str) -> float:
        """Run a command; its output goes to ``logs/LOG.log``.

        Args:
            name: of a script that is installed, or ``python`` for this Python.

        Returns:
            CPU seconds of it and its workers.

        Raises:
            CommandError: it failed; the message names the log.
        """
        return run_command(name, *arguments, env=self.environment(name), log=self.root / "logs" / f"{log}.log")

    def end_earlier_commands(self) -> None:
        """End the commands of a study in this folder that was killed."""
        end_marked(MARK, str(self.root))

    def prepare(self, data: DataSet, source: Path) -> None:
        """Plan and preprocess a data set, unless done, and write the folds.

        Raises:
            UserError: the working folder has other data of this name or number, or is in the data set; or the data have
                changed since, or have problems, which are all named, or nnU-Net has no plans for them.
            CommandError: planning failed.
        """
        raw, folder = self.raw(data), self.preprocessed(data)
        done, begun = folder / "prepared", folder / "preparing"
        if source.resolve() in (self.root, *self.root.parents):
            raise UserError(f"{self.root} is in the data set {source}: use another --root")
        if folder.exists() and not done.exists() and not begun.exists():
            raise UserError(f"{folder} was not made by this command, which would overwrite it: use another --root")
        same_number = [path.name for path in raw.parent.glob(f"Dataset{data.number:03d}_*") if path.name != data.folder]
        if same_number:
            raise UserError(f"{raw.parent} has {same_number[0]}, of the same number: use another --root")
        create_folders(self.root)
        if not raw.is_symlink() and not raw.exists():
            raw.symlink_to(source.resolve(), target_is_directory=True)
        if raw.resolve() != source.resolve():
            raise UserError(f"{raw} is {raw.resolve()}, not {source.resolve()}: use another --root")
        now = digest(source)
        if done.exists():
            if done.read_text(encoding="utf-8") not in ("", now):  # earlier versions wrote nothing
                raise UserError(f"{source} has changed since it was prepared in {self.root}: use another --root")
            return
        print(f"{data.key}: planning and preprocessing …", flush=True)
        dataset = check_raw_folder(raw, data.number)
        folder.mkdir(exist_ok=True)
        begun.touch()
        report_warnings(dataset, check_voxels(dataset, folder, num_processes=1))
        target = ("-gpu_memory_target", data.memory_target_gb) if self.device == "cpu" else ()
        self.run(
            _PLAN,
            *("-d", data.number, "-npfp", 1, "-np", 1, "-c", *data.configurations),
            *target,
            *("-overwrite_plans_name", UNET_PLANS),
            log=f"{data.key}_prepare",
        )
        planned = json.loads(self.plans(data).read_text(encoding="utf-8"))["configurations"]
        if missing := sorted(data.configurations.keys() - planned.keys()):
            raise UserError(f"nnU-Net plans no {missing[0]} for {source}, as for 2D images: the study cannot use them")
        folds = data.folds(case.name for case in dataset.cases)
        write_text_atomically(folder / SPLITS_FILE, json.dumps(folds, indent=1))
        write_text_atomically(done, now)

    def write_plans(self, data: DataSet, arms: Iterable[Arm]) -> None:
        """Write the plans of some arms, on the same preprocessed data."""
        plans = json.loads(self.plans(data).read_text(encoding="utf-8"))
        for arm in arms:
            content = json.dumps(plans_of(arm, plans, data.configurations), indent=1)
            write_text_atomically(self.plans(data, arm.plans), content)


def plans_of(arm: Arm, plans: Mapping[str, Any], configurations: Iterable[str]) -> dict[str, Any]:
    """The plans of an arm, with its network in some configurations, from those of nnU-Net's planner."""
    own = {name: arm.configuration(plans["configurations"][name]) for name in configurations}
    return {**plans, "plans_name": arm.plans, "configurations": own}


def data_ending(raw: Path) -> str:
    """The ending of a raw data set's files."""
    ending: str = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))["file_ending"]
    return ending
