"""What a run is asked to do, as values: models, folds, device, test images. Pickled into cluster jobs as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CASCADE, LOWRES = "3d_cascade_fullres", "3d_lowres"


@dataclass(frozen=True)
class RunModel:
    """What nnU-Net calls a model: a trainer, the name of plans, a configuration of these plans."""

    trainer: str
    plans: str
    configuration: str

    @property
    def name(self) -> str:
        """The name of its folder in nnUNet_results."""
        return f"{self.trainer}__{self.plans}__{self.configuration}"

    @property
    def previous(self) -> RunModel | None:
        """The model whose segmentations this one refines: that of the low resolution, for a cascade."""
        return RunModel(self.trainer, self.plans, LOWRES) if self.configuration == CASCADE else None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Test images and where their segmentations go; ``references`` has labels to score them with, if there are any."""

    images: Path
    output: Path
    references: Path | None = None
    mirroring: bool = True


@dataclass(frozen=True, kw_only=True)
class Folders:
    """nnU-Net's three folders."""

    raw: Path
    preprocessed: Path
    results: Path

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that tell nnU-Net of them."""
        return {
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
        }


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """One run over one data set.

    Attributes:
        dataset: its folder's name, ``DatasetXXX_Name``.
        models: those among which the best, or the best pair, is chosen.
        device: ``cuda``, ``cpu`` or ``mps``.
        gpus_per_fold: GPUs that train one fold together (nnU-Net's ``-num_gpus``).
        processes: of each command that works on cases side by side (nnU-Net's ``-np``).
        gpu_memory_target_gb: what is planned for; None is nnU-Net's own.
    """

    folders: Folders
    dataset: str
    models: tuple[RunModel, ...]
    folds: tuple[int, ...]
    device: str
    gpus_per_fold: int = 1
    processes: int = 2
    gpu_memory_target_gb: float | None = None
    prediction: Prediction | None = None

    @property
    def dataset_id(self) -> int:
        return int(self.dataset.removeprefix("Dataset").split("_")[0])

    @property
    def trained_models(self) -> tuple[RunModel, ...]:
        """All models to be trained, each after the one that it refines, none twice."""
        pairs = [(model.previous, model) for model in self.models]
        return tuple(dict.fromkeys(model for pair in pairs for model in pair if model is not None))

    @property
    def plans(self) -> tuple[str, ...]:
        """The names of all plans, none twice."""
        return tuple(dict.fromkeys(model.plans for model in self.models))
