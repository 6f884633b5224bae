"""Predict test images with the best configuration: the last steps of a run, their states and commands.

Predictions before postprocessing lie in the run's own folder, the final segmentations in the output folder.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.atomic_files import atomic_file
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.core.set_aside import is_set_aside
from factorizer_nnunet.nnunet.integrity import is_complete, newest
from factorizer_nnunet.nnunet.model_folder import PREDICTION_FILE, SUMMARY_FILE
from factorizer_nnunet.nnunet.provenance import Derived
from factorizer_nnunet.running import command_lines
from factorizer_nnunet.running.best_configuration import (
    BestConfiguration,
    current_best_configuration,
)
from factorizer_nnunet.running.command_lines import Command
from factorizer_nnunet.running.inference_files import (
    POSTPROCESS,
    PREDICT,
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
        steps = [
            Step(
                name=PREDICT,
                after=(after,),
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
        return steps

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
                done += is_complete(file)
                incomplete += cut_off([file])
        total = len(targets) * len(cases)
        return State(done == total, f"{done} of {total} cases", tuple(incomplete), tuple(outdated))

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
        return [self._prediction_command(best, target) for target in self.targets(best)]

    def _prediction_command(self, best: BestConfiguration, target: Target) -> Command:
        folders = [self.folder / stage.folder for stage in target.previous_stages]
        postprocessed = target == self.targets(best)[-1]  # a cascade was trained on plain segmentations
        return command_lines.predict(self.settings, self.prediction, target, best.folds, folders, postprocessed)

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
