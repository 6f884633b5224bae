"""Every file that a run reads or writes, named once; outside the run's own folder they are nnU-Net's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.nnunet.names import SPLITS_FILE
from factorizer_nnunet.running.models import RunModel

RUN_FOLDER = "factorizer_run"  # next to the models in nnUNet_results: logs, measurements, summary
REQUEST_FILE = "request.json"
LABEL_FOLDER = "gt_segmentations"  # nnU-Net's copy of the labels


@dataclass(frozen=True)
class Folders:
    """nnU-Net's three folders."""

    raw: Path
    preprocessed: Path
    results: Path

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that name them for nnU-Net."""
        return {
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
        }


@dataclass(frozen=True)
class RunPaths:
    """The files of one data set below nnU-Net's folders."""

    folders: Folders
    dataset: str

    @property
    def raw(self) -> Path:
        return self.folders.raw / self.dataset

    @property
    def preprocessed(self) -> Path:
        return self.folders.preprocessed / self.dataset

    @property
    def results(self) -> Path:
        return self.folders.results / self.dataset

    @property
    def fingerprint(self) -> Path:
        return self.preprocessed / "dataset_fingerprint.json"

    @property
    def dataset_json(self) -> Path:
        """The copy that planning makes and later commands read."""
        return self.preprocessed / "dataset.json"

    @property
    def splits(self) -> Path:
        return self.preprocessed / SPLITS_FILE

    @property
    def labels(self) -> Path:
        return self.preprocessed / LABEL_FOLDER

    def plans(self, name: str) -> Path:
        return self.preprocessed / f"{name}.json"

    def model(self, model: RunModel) -> Path:
        return self.results / model.name

    def fold(self, model: RunModel, fold: int) -> Path:
        return self.model(model) / f"fold_{fold}"

    def checkpoint(self, model: RunModel, fold: int) -> Path:
        """Written when a fold is trained."""
        return self.fold(model, fold) / "checkpoint_final.pth"

    def validation(self, model: RunModel, fold: int) -> Path:
        return self.fold(model, fold) / "validation"

    def fold_summary(self, model: RunModel, fold: int) -> Path:
        """Written when a fold is validated."""
        return self.validation(model, fold) / "summary.json"

    def next_stage(self, model: RunModel, configuration: str) -> Path:
        """Low-resolution segmentations for the cascade ``configuration``."""
        return self.model(model) / "predicted_next_stage" / configuration

    @property
    def best_configuration(self) -> Path:
        """The result of nnU-Net's find_best_configuration."""
        return self.results / "inference_information.json"

    def all_folds_summary(self, model: RunModel, folds: tuple[int, ...]) -> Path:
        """Scores of a model over the cases of all folds, written by find_best_configuration."""
        return self.model(model) / f"crossval_results_folds_{'_'.join(map(str, folds))}" / "summary.json"

    @property
    def run(self) -> Path:
        return self.results / RUN_FOLDER

    @property
    def lock(self) -> Path:
        return self.run / ".lock"

    @property
    def request(self) -> Path:
        """The settings of the last run; written when it begins."""
        return self.run / REQUEST_FILE

    @property
    def summary(self) -> Path:
        """The summary without its ending, ``.md`` or ``.json``."""
        return self.run / "summary"

    @property
    def report(self) -> Path:
        """The page with scores, curves and pictures of the cross-validation."""
        return self.run / "report.html"

    @property
    def cluster(self) -> Path:
        """Where submitit keeps its files."""
        return self.run / "slurm"

    def log(self, step: str) -> Path:
        return self.run / "logs" / f"{step}.log"

    def measurements(self, step: str) -> Path:
        return self.run / "measurements" / f"{step}.json"

    def before_merging(self, output: Path) -> Path:
        """Predictions of single models, from which the segmentations in ``output`` are made."""
        digest = hashlib.sha256(str(output).encode()).hexdigest()[:8]
        return self.run / "predictions" / f"{output.name}_{digest}"
