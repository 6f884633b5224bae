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

# Next to the models in nnUNet_results: logs, measurements and summary of the run without a name, and of each with one.
RUN_FOLDER, NAMED_RUNS_FOLDER = "factorizer_run", "factorizer_runs"
REQUEST_FILE = "request.json"
BEST_CONFIGURATION_FILE = "inference_information.json"  # nnU-Net's


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
    """The files of one run over a data set below nnU-Net's folders; ``name`` distinguishes it from others."""

    folders: Folders
    dataset: str
    name: str | None = None

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
    def last_best_configuration(self) -> Path:
        """The result of nnU-Net's find_best_configuration, which every call replaces."""
        return self.results / BEST_CONFIGURATION_FILE

    @property
    def best_configuration(self) -> Path:
        """This run's own copy of it."""
        return self.run / BEST_CONFIGURATION_FILE

    @property
    def unnamed(self) -> RunPaths:
        """The files of the run without a name."""
        return RunPaths(self.folders, self.dataset)

    @property
    def run(self) -> Path:
        return self.results / RUN_FOLDER if self.name is None else self.results / NAMED_RUNS_FOLDER / self.name

    @property
    def lock(self) -> Path:
        """Locked while this run is in progress; that of the run without a name while any run over the data set is."""
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
    def tuned_postprocessing(self) -> Path:
        """The folder of page and numbers of ``tune-postprocessing``; the rules lie next to the model."""
        return self.run / "tune_postprocessing"

    @property
    def no_postprocessing(self) -> Path:
        """A file like nnU-Net's postprocessing.pkl that changes nothing."""
        return self.run / "no_postprocessing.pkl"

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
