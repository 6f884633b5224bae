"""Where a prediction within a run reads and writes, and what its files are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.calibration.calibration_file import calibration_file
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Source
from factorizer_nnunet.nnunet.image_files import channels_by_case, image_name
from factorizer_nnunet.nnunet.model_folder import DATASET_FILE, PLANS_FILE, SUMMARY_FILE
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.pass_record import QUALITY_FILES
from factorizer_nnunet.nnunet.provenance import Derived
from factorizer_nnunet.running.best_configuration import BestConfiguration, read_best_configuration
from factorizer_nnunet.running.cascade import previous_stage
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.settings import Prediction, RunSettings

CALIBRATE, PREDICT, POSTPROCESS, SCORES, QUALITY = INFERENCE_STEPS = (
    *("calibrate", "predict", "postprocess"),
    *("scores", "quality"),
)
RULES = "rules of postprocessing"  # what the sources of predictions call the file
OTHER_FILES = (DATASET_FILE, PLANS_FILE, SUMMARY_FILE)  # next to postprocessed segmentations
_ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Target:
    """A folder of predictions.

    Attributes:
        folder: where they lie.
        models: one, or two that are averaged.
    """

    folder: Path
    models: tuple[ModelName, ...]

    @property
    def previous_stages(self) -> list[ModelName]:
        """The low resolution of each model that is a cascade, in the order of the models."""
        return [stage for stage in map(previous_stage, self.models) if stage is not None]


@dataclass(frozen=True)
class InferenceFiles:
    """The files of a prediction of test images. Those of the best configuration can be asked for once it is known."""

    settings: RunSettings
    prediction: Prediction

    @property
    def folder(self) -> Path:
        """The folder for predictions before postprocessing, and those of previous stages."""
        return self.settings.paths.before_postprocessing(self.prediction.output)

    @property
    def file_ending(self) -> str:
        return self.settings.paths.raw_dataset().file_ending

    def own_files(self) -> list[Path]:
        """All files that the run may write to the output folder, whether they exist or not."""
        output = self.prediction.output
        return [*self.segmentations([output]), *(output / name for name in (*OTHER_FILES, *QUALITY_FILES))]

    def best(self) -> BestConfiguration:
        """The best configuration, for commands that run after it was found."""
        best = read_best_configuration(self.settings.paths)
        if best is None:
            raise UserError(f"{self.settings.paths.best_configuration} is missing: run the same command again")
        return best

    def targets(self, best: BestConfiguration) -> list[Target]:
        """What is predicted: low resolutions before their cascades, and last what will be postprocessed."""
        last = Target(self.folder / (_ENSEMBLE if best.is_ensemble else best.models[0].folder), best.models)
        stages = dict.fromkeys(last.previous_stages)
        return [*(Target(self.folder / stage.folder, (stage,)) for stage in stages), last]

    def cases(self) -> list[str]:
        return list(channels_by_case(self.prediction.images, self.file_ending)[0])

    def segmentations(self, folders: Sequence[Path]) -> list[Path]:
        """The segmentations of all cases in these folders, whether they exist or not."""
        ending, cases = self.file_ending, self.cases()
        return [folder / f"{case}{ending}" for folder in folders for case in cases]

    def images(self) -> dict[str, list[Path]]:
        """The image files of each case, in the order of the channels."""
        ending = self.file_ending
        found = channels_by_case(self.prediction.images, ending)[0]
        return {
            case: [self.prediction.images / image_name(case, channel, ending) for channel in sorted(channels)]
            for case, channels in found.items()
        }

    def image_entries(self, case: str) -> set[str]:
        """What the sources of predictions call the images of a case, also those that it lacks."""
        channels = range(len(self.settings.paths.raw_dataset().channel_names))
        return {image_entry(Path(image_name(case, channel, self.file_ending))) for channel in channels}

    def predicted(self) -> Derived:
        """Predictions of all models, made from test images and checkpoints."""
        best = self.best()
        images: dict[str, Source] = {image_entry(file): file for files in self.images().values() for file in files}
        return self._derived(PREDICT, images | self._checkpoints(best.stages) | self._rules(), [])

    def _checkpoints(self, models: Sequence[ModelName]) -> dict[str, Source]:
        """Those of all folds of the best configuration."""
        folds = [(model, fold) for model in models for fold in self.best().folds]
        return {
            checkpoint_entry(model, fold): self.settings.paths.fold(model, fold).checkpoint() for model, fold in folds
        }

    def _rules(self) -> dict[str, Source]:
        file = tuned_rules(self.settings.paths, self.best())
        return {} if file is None else {RULES: file}

    def calibrated(self) -> Derived:
        """The calibration of each model of the best configuration, made from its folds, their labels, and rules."""
        best, paths = self.best(), self.settings.paths
        labels = {case.name: case.label for case in paths.raw_dataset().training_cases(paths.raw).values()}
        validated = (case for fold in best.folds for case in paths.validation_cases(fold))
        references: dict[str, Source] = {f"label of {case}": labels[case] for case in validated if case in labels}
        files = [calibration_file(paths.model(model).path) for model in best.models]
        return self._derived(CALIBRATE, self._checkpoints(best.models) | references | self._rules(), files)

    def postprocessed_from(self) -> Derived:
        """Final segmentations, made from those before nnU-Net's postprocessing and what says how to postprocess."""
        best = self.best()
        files = self.segmentations([self.targets(best)[-1].folder])
        functions = tuned_rules(self.settings.paths, best) or best.postprocessing
        sources: dict[str, Source] = {file.name: file for file in (*files, functions)}
        return self._derived(POSTPROCESS, sources, self.segmentations([self.prediction.output]))

    def scored(self) -> Derived:
        """Scores of the final segmentations against their references."""
        folders = {"segmentation": self.prediction.output, "reference": self.prediction.references}
        sources: dict[str, Source] = {
            f"{kind} {file.name}": file
            for kind, folder in folders.items()
            if folder is not None
            for file in self.segmentations([folder])
        }
        return self._derived(SCORES, sources, [self.prediction.output / SUMMARY_FILE])

    def _derived(self, step: str, sources: Mapping[str, Source], files: Sequence[Path]) -> Derived:
        return Derived(self.settings.paths.record(step), sources, {}, tuple(files))


def tuned_rules(paths: RunPaths, best: BestConfiguration) -> Path | None:
    """The rules next to the chosen model, which take the place of nnU-Net's postprocessing; None if there are none.

    They say nothing about a mean of two models.
    """
    file = paths.model(best.models[0]).postprocessing_file
    return file if not best.is_ensemble and file.is_file() else None


def image_entry(file: Path) -> str:
    """What the sources of predictions call a test image."""
    return f"image {file.name}"


def checkpoint_entry(model: ModelName, fold: int) -> str:
    """What the sources of predictions call a checkpoint."""
    return f"checkpoint of {model.folder} fold {fold}"
