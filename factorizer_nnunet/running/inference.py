"""Predict test images with the best configuration: the last steps of a run, their states and commands.

Predictions before postprocessing lie in the run's own folder, the final segmentations in the output folder.
"""

from __future__ import annotations

import filecmp
import pickle
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.calibration.calibration_file import read_calibration
from factorizer_nnunet.core.atomic_files import atomic_file
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.core.set_aside import is_set_aside
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE
from factorizer_nnunet.nnunet.integrity import is_complete, newest
from factorizer_nnunet.nnunet.model_folder import PLANS_FILE, PREDICTION_FILE, SUMMARY_FILE
from factorizer_nnunet.nnunet.pass_record import QUALITY_FILES, passes_file
from factorizer_nnunet.nnunet.provenance import Derived
from factorizer_nnunet.running import command_lines
from factorizer_nnunet.running.best_configuration import (
    BestConfiguration,
    current_best_configuration,
)
from factorizer_nnunet.running.command_lines import Command
from factorizer_nnunet.running.inference_files import (
    CALIBRATE,
    POSTPROCESS,
    PREDICT,
    QUALITY,
    RULES,
    SCORES,
    InferenceFiles,
    Target,
    checkpoint_entry,
    tuned_rules,
)
from factorizer_nnunet.running.states import cut_off
from factorizer_nnunet.running.step import State, Step


@dataclass(frozen=True)
class Inference(InferenceFiles):
    """The prediction of test images within a run."""

    def steps(self, after: str) -> list[Step]:
        """The steps, of which the first comes after the step ``after``."""
        quality = self.prediction.quality
        steps = [self._calibration(after)] if quality else []
        steps += [
            Step(
                name=PREDICT,
                after=(CALIBRATE if quality else after,),
                on_device=True,
                state=self.prediction_state,
                commands=self.prediction_commands,
                derived=self.predicted,
                recorded_first=True,
            ),
            Step(
                name=POSTPROCESS,
                after=(PREDICT,),
                state=self.postprocessing_state,
                commands=self.postprocessing_commands,
                prepare=self.prepare_postprocessing,
                finish=self.copy_descriptions,
                derived=self.postprocessed_from,
                appears=self.prediction.output,
            ),
        ]
        references = self.prediction.references
        if references is not None:
            steps.append(
                Step(
                    name=SCORES,
                    after=(POSTPROCESS,),
                    state=self.scores_state,
                    derived=self.scored,
                    commands=lambda: [
                        command_lines.scores(self.settings, self.prediction.output, references, self.best().plans_file)
                    ],
                )
            )
        if quality:
            steps.append(
                Step(
                    name=QUALITY,
                    after=(POSTPROCESS,),
                    state=self.quality_state,
                    commands=list,
                    finish=self.copy_quality,
                )
            )
        return steps

    def _calibration(self, after: str) -> Step:
        return Step(
            name=CALIBRATE,
            after=(after,),
            on_device=True,
            state=self.calibration_state,
            commands=lambda: [
                command_lines.calibrate(
                    self.settings, self.prediction, model, self.best().folds, postprocessed=not self.best().is_ensemble
                )
                for model in self.best().models
            ],
            derived=self.calibrated,
        )

    def calibration_state(self) -> State:
        """Done when each model of the best configuration has a calibration of its folds as they are."""
        if current_best_configuration(self.settings) is None:
            return State(False)
        made = self.calibrated()
        if not all(is_complete(file) for file in made.files) or made.stale_reason() is not None:
            return State(False)
        found = [read_calibration(file.parent) for file in made.files]
        alike = all(one is not None and one.settings.get("use_mirroring") == self.prediction.mirroring for one in found)
        return State(alike, "" if alike else "calibrated with other mirroring")

    def quality_state(self) -> State:
        """Done when the output folder has the present files about quality."""
        pairs = self._quality_files()
        return State(bool(pairs) and all(_same_content(made, copy) for made, copy in pairs))

    def copy_quality(self) -> None:
        """Copy what was written about quality next to the final segmentations."""
        for made, copy in self._quality_files():
            _copy(made, copy)

    def _quality_files(self) -> list[tuple[Path, Path]]:
        """The files next to the predictions before postprocessing, and those in the output folder."""
        if current_best_configuration(self.settings) is None:
            return []
        folder = self.targets(self.best())[-1].folder
        return [(folder / name, self.prediction.output / name) for name in QUALITY_FILES]

    def prediction_state(self) -> State:
        """Done when there are segmentations of all these images, also of previous stages."""
        best = current_best_configuration(self.settings)
        if best is None:
            return State(False)
        cases = self.cases()
        changes = self.predicted().changed_sources()
        changed = set(changes or ())
        done = 0
        incomplete: list[Path] = []
        outdated: list[Path] = []
        targets = self.targets(best)
        for target in targets:
            if self._is_of_other_models(best, target, changes):
                outdated.append(target.folder)
                continue
            for case in cases:
                file = target.folder / f"{case}{self.file_ending}"
                if changed & self.image_entries(case):
                    outdated += [file] if file.exists() else []
                    continue
                compared = passes_file(target.folder, case).exists() or not self._is_judged(target, targets)
                done += is_complete(file) and compared
                incomplete += cut_off([file])
        total = len(targets) * len(cases)
        judged = not self.prediction.quality or all(made.exists() for made, _ in self._quality_files())
        return State(done == total and judged, f"{done} of {total} cases", tuple(incomplete), tuple(outdated))

    def postprocessing_state(self) -> State:
        """Done when the final segmentations are made from the present ones before postprocessing."""
        if current_best_configuration(self.settings) is None:
            return State(False)
        return self._state_of_folder(self.prediction.output, self.postprocessed_from())

    def scores_state(self) -> State:
        """Done when the scores are of the present segmentations and references."""
        scores = self.prediction.output / SUMMARY_FILE
        if not is_complete(scores):
            return State(False, incomplete=cut_off([scores]))
        reason = self.scored().stale_reason()
        return State(True) if reason is None else State(False, reason, outdated=(scores,))

    def prediction_commands(self) -> list[Command]:
        """A command for each folder of predictions; the two models of a pair are averaged in one pass."""
        best = self.best()
        targets = self.targets(best)
        return [self._prediction_command(best, target, self._is_judged(target, targets)) for target in targets]

    def _prediction_command(self, best: BestConfiguration, target: Target, quality: bool) -> Command:
        folders = [self.folder / stage.folder for stage in target.previous_stages]
        postprocessed = target == self.targets(best)[-1]  # a cascade was trained on plain segmentations
        return command_lines.predict(
            self.settings, self.prediction, target, best.folds, folders, postprocessed, quality
        )

    def _is_judged(self, target: Target, targets: Sequence[Target]) -> bool:
        """Whether the passes of a target are compared: not those of previous stages."""
        return self.prediction.quality and target == targets[-1]

    def postprocessing_commands(self) -> list[Command]:
        """One command: nnU-Net's postprocessing, as find_best_configuration determined it.

        Segmentations that have been postprocessed by tuned rules are copied instead.
        """
        best, paths = self.best(), self.settings.paths
        source = self.targets(best)[-1].folder
        functions = best.postprocessing if tuned_rules(paths, best) is None else paths.no_postprocessing
        return [command_lines.postprocess(self.settings, source, self.prediction.output, best, functions)]

    def prepare_postprocessing(self) -> list[str]:
        """Write the file of functions for segmentations that are only copied."""
        if (rules := tuned_rules(self.settings.paths, self.best())) is None:
            return []
        with atomic_file(self.settings.paths.no_postprocessing) as draft:
            draft.write_bytes(pickle.dumps(([], [])))
        return [f"postprocessed by {rules}, instead of nnU-Net's postprocessing"]

    def copy_descriptions(self) -> None:
        """Copy nnU-Net's plans and dataset.json next to the final segmentations, as nnUNetv2_predict does."""
        plans = self.best().plans_file
        _copy(plans, self.prediction.output / PLANS_FILE)
        _copy(plans.with_name(DATASET_FILE), self.prediction.output / DATASET_FILE)

    def _is_of_other_models(self, best: BestConfiguration, target: Target, changes: Mapping[str, str] | None) -> bool:
        """Whether a folder's predictions are of other images or with other mirroring, or of folds before they changed.

        Without a record of the sources, times tell whether a fold was trained after the prediction began.
        """
        began = target.folder / PREDICTION_FILE
        if not began.exists():  # earlier versions merged files of probabilities, which leaves no record
            return any(file.exists() for file in self.segmentations([target.folder]))
        content = read_complete_json(began) or {}
        asked = {"images": str(self.prediction.images), "use_mirroring": self.prediction.mirroring}
        if any(content.get(key, value) != value for key, value in asked.items()):
            return True
        folds = [(model, fold) for model in target.models for fold in best.folds]
        if changes is None:
            trained = newest(self.settings.paths.fold(model, fold).checkpoint() for model, fold in folds)
            return began.stat().st_mtime < trained
        is_last = target == self.targets(best)[-1]
        return any(checkpoint_entry(model, fold) in changes for model, fold in folds) or (is_last and RULES in changes)

    def _state_of_folder(self, folder: Path, made: Derived) -> State:
        """The state of a folder that appears complete, made from predictions of the same cases in other folders."""
        files = self.segmentations([folder])
        present = [file for file in files if file.exists()]
        if len(present) == len(files) and made.stale_reason() is None:
            return State(True)
        has_files = folder.is_dir() and any(not is_set_aside(path.name) for path in folder.iterdir())
        return State(False, outdated=(folder,) if has_files else ())


def _copy(file: Path, target: Path) -> None:
    with atomic_file(target) as draft:
        shutil.copyfile(file, draft)


def _same_content(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)
