"""The model that a fine-tuning starts from: a model folder or nnU-Net's zip of one, read without executing its code."""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.nnunet.checkpoint import FoldCheckpoint
from factorizer_nnunet.nnunet.exported_model import is_exported, is_exported_zip, opened_model
from factorizer_nnunet.nnunet.heads import Heads, heads
from factorizer_nnunet.nnunet.model_folder import ALL_CASES, CHECKPOINT_FINAL, ModelFolder
from factorizer_nnunet.nnunet.model_zip import unpack_model
from factorizer_nnunet.nnunet.weights_file import WEIGHTS_FILE
from factorizer_nnunet.prediction.model import TrainedModel, load_model
from factorizer_nnunet.training.building import trained_architecture


@dataclass(frozen=True)
class SourceModel:
    """One fold of a trained model.

    Attributes:
        place: the folder or zip that the user named.
        fold: a number or ``all``.
        heads: its channels and outputs.
        architecture: the entry of plans from which its network is built; that of a Factorizer also where the plans
            describe a U-Net that our trainer translated.
    """

    place: Path
    model: TrainedModel
    fold: str
    heads: Heads
    architecture: Mapping[str, Any]

    @property
    def checkpoint(self) -> FoldCheckpoint:
        return self.model.first

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of its configuration, with those that it inherits."""
        return dict(self.model.configuration.configuration)

    @property
    def is_factorizer(self) -> bool:
        return isinstance(self.model.network, Factorizer)

    @property
    def ndim(self) -> int:
        """Spatial axes of its network."""
        return len(self.model.configuration.patch_size)

    @property
    def title(self) -> str:
        """Its data set, folder and fold, for messages."""
        return f"{self.model.plans.dataset_name}, {self.model.folder.name}, fold {self.fold}"


@contextlib.contextmanager
def opened_source(
    place: Path, configuration: str | None, fold: str | None, checkpoint: str = CHECKPOINT_FINAL
) -> Iterator[SourceModel]:
    """Read a model; a zip is unpacked to a temporary folder while the block runs.

    Args:
        place: ``TRAINER__PLANS__CONFIGURATION``, a zip with it, or an exported model, folder or zip.
        configuration: which a zip of several models must contain; a folder's must be the same.
        fold: whose weights are taken; None takes ``all``, else the first.
        checkpoint: name of the file in the fold's folder; of an exported model, the one that it was exported from.

    Raises:
        UserError: the model cannot be used; the message says why.
    """
    with contextlib.ExitStack() as stack:
        folder, file_name = place, checkpoint
        if is_exported(place) and (place.is_dir() or is_exported_zip(place)):
            folder, file_name = stack.enter_context(opened_model(place)).folder, WEIGHTS_FILE
        elif place.is_file():
            if not zipfile.is_zipfile(place):
                raise UserError(
                    f"{place} is not a zip file, or is cut off. Name a model folder TRAINER__PLANS__CONFIGURATION or a "
                    "zip of nnUNetv2_export_model_to_zip; weights of the authors' networks: factorizer-nnunet "
                    "import-upstream"
                )
            temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="factorizer_model_")))
            folder = unpack_model(place, temporary, checkpoint, configuration)
        yield _read(place, folder, configuration, fold or _usual_fold(folder, file_name), checkpoint)


def _read(place: Path, folder: Path, configuration: str | None, fold: str, checkpoint: str) -> SourceModel:
    model = load_model(folder, [fold], checkpoint)
    trained = model.first.configuration
    if configuration not in (None, trained):
        raise UserError(
            f"{place} was trained as {trained}, so its network cannot be fine-tuned as {configuration}. Leave out -c, "
            f"or name the model of {configuration} with --from"
        )
    if model.configuration.previous_stage_name is not None:
        raise UserError(
            f"{place} is the second stage of a cascade, which also gets the segmentation of the first. Start from "
            "a model of 3d_fullres or 3d_lowres"
        )
    try:
        found = heads(model.plans.plans, trained, model.dataset)
        architecture = _architecture(model)
    except ValueError as error:
        raise UserError(f"{place}: {error}. Restore plans.json and dataset.json as the training left them") from error
    return SourceModel(place, model, fold, found, architecture)


def _usual_fold(folder: Path, file_name: str) -> str:
    """``all`` if the model has it, since it was trained on most cases; else its first fold."""
    names = [fold.name for fold in ModelFolder(folder).folds(file_name)]
    return ALL_CASES if ALL_CASES in names else min(names, key=_number, default="0")


def _number(fold: str) -> float:
    return float(fold) if fold.isdecimal() else float("inf")


def _architecture(model: TrainedModel) -> Mapping[str, Any]:
    settings = model.configuration
    if isinstance(model.network, Factorizer):
        return trained_architecture(settings)
    return {
        "network_class_name": settings.network_arch_class_name,
        "arch_kwargs": settings.network_arch_init_kwargs,
        "_kw_requires_import": list(settings.network_arch_init_kwargs_req_import),
    }
