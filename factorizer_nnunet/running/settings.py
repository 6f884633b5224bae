"""What a run is asked to do, as values: models, folds, device, test images. Pickled into cluster jobs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.nnunet.folds import NUMBER_OF_FOLDS, read_folds
from factorizer_nnunet.nnunet.model_name import ModelName, repeat_of
from factorizer_nnunet.nnunet.names import id_in_name
from factorizer_nnunet.running.cascade import previous_stage, with_previous_stages
from factorizer_nnunet.running.paths import Folders, RunPaths


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Test images, the folder for their segmentations, and optionally labels to score them with.

    Attributes:
        quality: whether to say how far to trust each segmentation.
    """

    images: Path
    output: Path
    references: Path | None = None
    mirroring: bool = True
    quality: bool = False


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """One run over one data set.

    Attributes:
        dataset: name, ``DatasetXXX_Name``.
        models: those among which the best, or the best pair, is chosen.
        device: ``cuda``, ``cpu`` or ``mps``.
        gpus_per_fold: GPUs that train one fold together (nnU-Net's ``-num_gpus``).
        processes: worker processes of a command (nnU-Net's ``-np``).
        gpu_memory_target_gb: GPU memory to plan for, in GB; None is the planner's default.
        prediction: None if no test images are to be predicted.
        data_check: look at every voxel of the raw data before the first step.
        channel_subsets: predict the validation cases of ``_channeldrop`` models with every subset of channels.
        accept_outdated: use trainings and edited plans although what they were made from has changed.
        repeats: how often each model is trained, see ``repeated``.
        postprocessing: the scheme under which postprocessing is tuned; None: it is not.
        name: keeps the run's state and summary apart from those of other runs over the data set.
    """

    folders: Folders
    dataset: str
    models: tuple[ModelName, ...]
    folds: tuple[int, ...]
    device: str
    gpus_per_fold: int = 1
    processes: int = 2
    gpu_memory_target_gb: float | None = None
    prediction: Prediction | None = None
    data_check: bool = True
    channel_subsets: bool = False
    accept_outdated: bool = False
    repeats: int = 1
    postprocessing: str | None = None
    name: str | None = None

    @property
    def paths(self) -> RunPaths:
        """The files of this run."""
        return RunPaths(self.folders, self.dataset, self.name)

    @property
    def dataset_id(self) -> int:
        return id_in_name(self.dataset)

    @property
    def repeated(self) -> tuple[ModelName, ...]:
        """The models trained again, to know how much trainings differ by chance; none of these is chosen."""
        numbers = range(2, self.repeats + 1)
        return tuple(repeat_of(model, number) for number in numbers for model in self.models)

    @property
    def trained_models(self) -> tuple[ModelName, ...]:
        """All models to be trained, each after the one that it refines, none twice; repeats last."""
        return with_previous_stages((*self.models, *self.repeated))

    @property
    def trainings(self) -> list[tuple[ModelName, int]]:
        """Every model and fold to train."""
        return [(model, fold) for model in self.trained_models for fold in self.folds_of(model)]

    def folds_of(self, model: ModelName) -> tuple[int, ...]:
        """The folds to train; a cascade needs segmentations of all cases, thus all folds of its low resolution."""
        if not self.next_stages(model):
            return self.folds
        return tuple(range(len(read_folds(self.paths.splits)) or NUMBER_OF_FOLDS))

    def next_stages(self, model: ModelName) -> tuple[str, ...]:
        """The configurations that refine the segmentations of a model."""
        trained = (*self.models, *self.repeated)
        return tuple(other.configuration for other in trained if previous_stage(other) == model)

    @property
    def plans(self) -> tuple[str, ...]:
        """The names of all plans, none twice."""
        return tuple(dict.fromkeys(model.plans for model in self.models))
