"""Predict test images with the best configuration: the last steps of a run, their states and commands.

Predictions of single models and their mean lie in the run's own folder, the final segmentations in the output folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.nnunet.image_files import channels_by_case
from factorizer_nnunet.nnunet.integrity import is_complete, newest, oldest
from factorizer_nnunet.nnunet.model_folder import DATASET_FILE, PLANS_FILE, PREDICTION_FILE, SUMMARY_FILE
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.running import command_lines
from factorizer_nnunet.running.best_configuration import (
    BestConfiguration,
    current_best_configuration,
    read_best_configuration,
)
from factorizer_nnunet.running.cascade import previous_stage
from factorizer_nnunet.running.command_lines import Command
from factorizer_nnunet.running.settings import Prediction, RunSettings
from factorizer_nnunet.running.states import cut_off
from factorizer_nnunet.running.step import State, Step

PREDICT, ENSEMBLE, POSTPROCESS, SCORES = INFERENCE_STEPS = ("predict", "ensemble", "postprocess", "scores")
OTHER_FILES = (DATASET_FILE, PLANS_FILE, SUMMARY_FILE)  # next to merged or postprocessed segmentations


@dataclass(frozen=True)
class Inference:
    """The prediction of test images within a run."""

    settings: RunSettings
    prediction: Prediction

    @property
    def folder(self) -> Path:
        """The folder for predictions of single models and their mean."""
        return self.settings.paths.before_merging(self.prediction.output)

    @property
    def file_ending(self) -> str:
        return self.settings.paths.raw_dataset().file_ending

    def steps(self, after: str) -> list[Step]:
        """The steps, of which the first comes after the step ``after``."""
        steps = [
            Step(
                name=PREDICT,
                after=(after,),
                on_device=True,
                state=self.prediction_state,
                commands=self.prediction_commands,
            ),
            Step(
                name=ENSEMBLE,
                after=(PREDICT,),
                state=self.ensemble_state,
                commands=self.ensemble_commands,
                appears=self.folder / ENSEMBLE,
            ),
            Step(
                name=POSTPROCESS,
                after=(ENSEMBLE,),
                state=self.postprocessing_state,
                commands=self.postprocessing_commands,
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
                    commands=lambda: [
                        command_lines.scores(self.settings, self.prediction.output, references, self._best().plans_file)
                    ],
                )
            )
        return steps

    def own_files(self) -> list[Path]:
        """All files that the run may write to the output folder, whether they exist or not."""
        output = self.prediction.output
        return [*self._segmentations([output]), *(output / name for name in OTHER_FILES)]

    def prediction_state(self) -> State:
        """Done when every model has segmentations of all these images, and probabilities for an ensemble."""
        best = current_best_configuration(self.settings)
        if best is None:
            return State(False)
        cases = self._cases()
        done = 0
        stale: list[Path] = []
        for model in best.stages:
            folder = self.folder / model.folder
            record = folder / PREDICTION_FILE
            trained = newest(self.settings.paths.fold(model, fold).checkpoint() for fold in best.folds)
            if record.exists() and not self._predicted_as_asked(record, trained):
                stale += [file for file in folder.iterdir() if file.is_file()]
                continue
            for case in cases:
                files = [folder / f"{case}{ending}" for ending in self._endings(best, model)]
                done += all(is_complete(file) for file in files)
                stale += cut_off(files)
        total = len(best.stages) * len(cases)
        return State(done == total, f"{done} of {total} cases", tuple(stale))

    def ensemble_state(self) -> State:
        """Done at once for a single model; else when the merged segmentations are newer than those of the models."""
        best = current_best_configuration(self.settings)
        if best is None:
            return State(False)
        if not best.is_ensemble:
            return State(True, "one model, nothing to merge")
        return self._state_of_folder(self.folder / ENSEMBLE, [self.folder / model.folder for model in best.models])

    def postprocessing_state(self) -> State:
        """Done when the final segmentations are newer than those before postprocessing."""
        best = current_best_configuration(self.settings)
        if best is None:
            return State(False)
        return self._state_of_folder(self.prediction.output, [self._before_postprocessing(best)])

    def scores_state(self) -> State:
        """Done when the scores are newer than the final segmentations."""
        output = self.prediction.output
        scores = output / SUMMARY_FILE
        done = is_complete(scores) and scores.stat().st_mtime >= newest(self._segmentations([output]))
        return State(done, left_over=cut_off([scores]))

    def prediction_commands(self) -> list[Command]:
        """A command for each model, a low resolution before its cascade."""
        best = self._best()
        return [self._prediction_command(best, model) for model in best.stages]

    def _prediction_command(self, best: BestConfiguration, model: ModelName) -> Command:
        previous = previous_stage(model)
        return command_lines.predict(
            self.settings,
            self.prediction,
            model,
            best.folds,
            self.folder / model.folder,
            previous=None if previous is None else self.folder / previous.folder,
            probabilities=best.is_ensemble and model in best.models,
        )

    def ensemble_commands(self) -> list[Command]:
        """One command, none for a single model."""
        best = self._best()
        folders = [self.folder / model.folder for model in best.models]
        return [command_lines.ensemble(self.settings, folders, self.folder / ENSEMBLE)] if best.is_ensemble else []

    def postprocessing_commands(self) -> list[Command]:
        """One command: nnU-Net's postprocessing, as find_best_configuration determined it."""
        best = self._best()
        source = self._before_postprocessing(best)
        return [command_lines.postprocess(self.settings, source, self.prediction.output, best)]

    def _best(self) -> BestConfiguration:
        """The best configuration, for commands that run after it was found."""
        best = read_best_configuration(self.settings.paths)
        if best is None:
            raise UserError(f"{self.settings.paths.best_configuration} is missing: run the same command again")
        return best

    def _before_postprocessing(self, best: BestConfiguration) -> Path:
        return self.folder / (ENSEMBLE if best.is_ensemble else best.models[0].folder)

    def _cases(self) -> list[str]:
        return list(channels_by_case(self.prediction.images, self.file_ending)[0])

    def _segmentations(self, folders: Sequence[Path]) -> list[Path]:
        """The segmentations of all cases in these folders, whether they exist or not."""
        ending = self.file_ending
        return [folder / f"{case}{ending}" for folder in folders for case in self._cases()]

    def _predicted_as_asked(self, record: Path, trained: float) -> bool:
        """Whether a prediction is of these images, with this mirroring, and began after the folds were trained."""
        content = read_complete_json(record) or {}
        asked = {"images": str(self.prediction.images), "use_mirroring": self.prediction.mirroring}
        same = all(content.get(key, value) == value for key, value in asked.items())
        return same and record.stat().st_mtime >= trained

    def _endings(self, best: BestConfiguration, model: ModelName) -> Iterator[str]:
        yield self.file_ending
        if best.is_ensemble and model in best.models:  # merged from probabilities
            yield from (".npz", ".pkl")

    def _state_of_folder(self, folder: Path, sources: Sequence[Path]) -> State:
        """The state of a folder that appears complete, made from segmentations of the same cases in other folders."""
        files = self._segmentations([folder])
        made_from = [*self._segmentations(sources), self.settings.paths.best_configuration]
        if all(file.exists() for file in files) and oldest(files) >= newest(made_from):
            return State(True)
        own = [*files, *(folder / name for name in OTHER_FILES)]
        return State(False, left_over=tuple(file for file in own if file.exists()))
