"""Predict the validation cases of trained folds with every subset of channels.

A case is predicted by the fold that was validated on it, from nnU-Net's preprocessed data. Cases that ``dataset.json``
declares incomplete are left out. Each case is saved as it is done, so that the same call continues.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tqdm import tqdm

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.subset_scores import (
    FILE,
    CaseScores,
    Dice,
    SubsetScores,
    read_subset_scores,
    subsets,
)
from factorizer_nnunet.nnunet.absent_channels import advice_for, leave_out
from factorizer_nnunet.nnunet.exported_model import check_has_validation
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL, ModelFolder
from factorizer_nnunet.nnunet.tiles import num_tiles
from factorizer_nnunet.prediction.devices import chosen_device
from factorizer_nnunet.prediction.model import TrainedModel, load_model
from factorizer_nnunet.prediction.sliding_window import check_logits
from factorizer_nnunet.tuning.cases import ValidationCase, ValidationCases


@dataclass(frozen=True, kw_only=True)
class SubsetRequest:
    """What to measure.

    Attributes:
        model: the model folder.
        folds: numbers; empty takes all that are trained.
        mirroring: average over mirrored images, eight times as slow in 3D.
    """

    model: Path
    folds: tuple[str, ...] = ()
    device: str = "cuda"
    mirroring: bool = False
    progress_bar: bool = False


@dataclass(frozen=True)
class FoldWork:
    """A fold, its cases, and what has been measured of it."""

    file: Path
    model: TrainedModel
    cases: ValidationCases
    names: tuple[str, ...]
    scores: SubsetScores

    @property
    def left(self) -> list[str]:
        """Cases that are not predicted yet."""
        return [name for name in self.names if name not in self.scores.cases]

    @property
    def num_left(self) -> int:
        """The number of predictions that are left."""
        return len(self.left) * len(subsets(self.scores.channels))


def measure_subsets(request: SubsetRequest, say: Callable[[str], None] = print) -> list[SubsetScores]:
    """Predict what is missing; ``say`` gets the number of predictions, and how long they will take.

    Raises:
        UserError: the model was not trained to predict without some channels, or it or its data cannot be used.
    """
    device = chosen_device(request.device)
    check_has_validation(request.model)
    folder = ModelFolder(request.model)
    folds = request.folds or tuple(fold.name for fold in folder.folds(CHECKPOINT_FINAL) if fold.name.isdecimal())
    works = [fold_work(request.model, fold, request.mirroring) for fold in folds or ("0",)]
    for work in works:
        _check_trained_for_it(work.model)
    total = sum(work.num_left for work in works)
    cases = sum(len(work.names) for work in works)
    say(f"{cases} cases × {len(subsets(works[0].scores.channels))} subsets; {total} predictions left")
    if total:
        seconds = sum(_seconds(work, device, request.mirroring) for work in works)
        say(f"time: about {seconds / 60:.0f} min for the network, by one patch that was timed")
    for work in works:
        predict_subsets(work, device, request.mirroring, request.progress_bar)
    return [work.scores for work in works]


def fold_work(folder: Path, fold: str, mirroring: bool) -> FoldWork:
    """Read a fold, and what has been measured with its present weights.

    Raises:
        UserError: the model or its data cannot be used, or it was measured with the other setting of mirroring.
    """
    model = load_model(folder, [fold], CHECKPOINT_FINAL)
    cases = ValidationCases(model)
    names = [name for name in cases.of_fold(fold) if name not in model.dataset.absent_channels]
    file = ModelFolder(folder).fold(fold).path / FILE
    before = read_subset_scores(file)
    scores = SubsetScores(checkpoint=model.first.digest, mirroring=mirroring, channels=model.dataset.channel_names)
    if before is not None and (before.checkpoint, before.channels) == (scores.checkpoint, scores.channels):
        if before.mirroring != mirroring:
            advice = "leave out --mirroring" if mirroring else "add --mirroring"
            raise UserError(
                f"{file} was measured with{'' if before.mirroring else 'out'} mirroring and is not overwritten: remove "
                f"it, or {advice}"
            )
        scores.cases.update({name: case for name, case in before.cases.items() if name in names})
    return FoldWork(file, model, cases, tuple(names), scores)


def predict_subsets(work: FoldWork, device: torch.device, mirroring: bool, progress_bar: bool = False) -> None:
    """Predict the cases that are left, and write the file after each.

    Raises:
        UserError: a case cannot be read or predicted, or the file cannot be written.
    """
    predictor = _predictor(work.model, device, mirroring)
    bar = tqdm(work.left, desc=work.file.parent.name, unit="case", disable=None if progress_bar else True)
    for name in bar:
        start = time.perf_counter()
        case = work.cases.load(name)
        dice = {
            subset: _dice(case, absent, work, predictor) for subset, absent in subsets(work.scores.channels).items()
        }
        work.scores.cases[name] = CaseScores(seconds=time.perf_counter() - start, dice=dice)
        try:
            work.scores.write(work.file)
        except OSError as error:
            raise UserError(
                f"cannot write {work.file}: {error.strerror}. Free some space, then run the same command again: "
                "what is measured is kept"
            ) from error


def _check_trained_for_it(model: TrainedModel) -> None:
    if not model.description.takes_absent:
        raise UserError(
            f"{model.folder} was not trained to predict without some channels. {advice_for(model.first.trainer_name)}"
        )


def _predictor(model: TrainedModel, device: torch.device, mirroring: bool) -> nnUNetPredictor:
    return model.predictor(
        device, tile_step_size=model.tile_step_size, use_mirroring=mirroring, on_device=device.type == "cuda"
    )


def _dice(case: ValidationCase, absent: Collection[int], work: FoldWork, predictor: nnUNetPredictor) -> Dice:
    logits = predictor.predict_sliding_window_return_logits(without(case.data, absent, work.model))
    return work.cases.dice(work.cases.segmentation(check_logits(logits.cpu()), case), case)


def without(data: torch.Tensor, absent: Collection[int], model: TrainedModel) -> torch.Tensor:
    """A preprocessed case as the model's network gets it without some channels.

    A model that was not trained for it gets zeros, for comparison.

    Args:
        data: (channels, *spatial); in a cascade the previous stage's segmentation follows the image.
        absent: numbers of channels.
        model: whose network it is.
    """
    data = data.clone()
    image = data[: model.num_channels]
    if model.description.takes_absent:
        leave_out(image.numpy(), absent)
    else:
        image[list(absent)] = 0
    return data


def _seconds(work: FoldWork, device: torch.device, mirroring: bool) -> float:
    """The time of the network for all predictions that are left, from one patch."""
    if not work.left:
        return 0.0
    patch = tuple(work.model.configuration.patch_size)
    tile = torch.zeros(work.model.description.num_input_channels, *[1] * (3 - len(patch)), *patch)
    predictor = _predictor(work.model, device, mirroring)
    predictor.predict_sliding_window_return_logits(tile)  # the first one compiles and tunes
    start = time.perf_counter()
    predictor.predict_sliding_window_return_logits(tile)
    of_patch = time.perf_counter() - start
    return of_patch * sum(_patches(work, patch)) * len(subsets(work.scores.channels))


def _patches(work: FoldWork, patch: Sequence[int]) -> Iterator[int]:
    """The number of patches of each case that is left; a 2D network goes through the slices."""
    for name in work.left:
        yield num_tiles(work.cases.shape(name), patch, work.model.tile_step_size)
