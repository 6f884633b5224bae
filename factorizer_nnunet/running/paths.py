"""Every file that a run reads or writes, named once; outside the run's own folder they are nnU-Net's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, DatasetJson
from factorizer_nnunet.nnunet.folds import read_folds
from factorizer_nnunet.nnunet.model_folder import FINGERPRINT_FILE, FoldFolder, ModelFolder
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import LABEL_FOLDER, SPLITS_FILE

RUN_FOLDER = "factorizer_run"  # next to the models in nnUNet_results: logs, measurements, summary
REQUEST_FILE = "request.json"


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

    def raw_dataset(self) -> DatasetJson:
        """Read the raw data set's description.

        Raises:
            UserError: it cannot be read.
        """
        return DatasetJson.read(self.raw / DATASET_FILE)

    @property
    def fingerprint(self) -> Path:
        return self.preprocessed / FINGERPRINT_FILE

    @property
    def dataset_json(self) -> Path:
        """The copy that planning makes and later commands read."""
        return self.preprocessed / DATASET_FILE

    @property
    def splits(self) -> Path:
        return self.preprocessed / SPLITS_FILE

    def validation_cases(self, fold: int) -> list[str]:
        """The cases on which a fold is validated; none if the fold is not defined yet."""
        folds = read_folds(self.splits)
        return folds[fold]["val"] if fold < len(folds) else []

    @property
    def labels(self) -> Path:
        return self.preprocessed / LABEL_FOLDER

    def plans(self, name: str) -> Path:
        return self.preprocessed / f"{name}.json"

    def model(self, model: ModelName) -> ModelFolder:
        return ModelFolder(self.results / model.folder)

    def fold(self, model: ModelName, fold: int) -> FoldFolder:
        return self.model(model).fold(fold)

    @property
    def best_configuration(self) -> Path:
        """The result of nnU-Net's find_best_configuration."""
        return self.results / "inference_information.json"

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

    def record(self, step: str) -> Path:
        """What a step's result was made from."""
        return self.run / "sources" / f"{step}.json"

    def before_postprocessing(self, output: Path) -> Path:
        """Predictions from which the segmentations in ``output`` are made."""
        digest = hashlib.sha256(str(output).encode()).hexdigest()[:8]
        return self.run / "predictions" / f"{output.name}_{digest}"
