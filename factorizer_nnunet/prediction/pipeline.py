"""Cases through the network one after the other, while worker processes read and write others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tqdm import tqdm

from factorizer_nnunet.core.disk import is_disk_full
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.core.worker_pool import WorkerPool
from factorizer_nnunet.nnunet.image_files import ImageCase
from factorizer_nnunet.postprocessing.rules import Postprocessing
from factorizer_nnunet.prediction.case_states import State, make_way, state_of
from factorizer_nnunet.prediction.claims import Claims
from factorizer_nnunet.prediction.description import ModelDescription
from factorizer_nnunet.prediction.image_reading import readable_by
from factorizer_nnunet.prediction.measuring import Measured, comparison_of, statistics_of
from factorizer_nnunet.prediction.memory import MemoryLimit
from factorizer_nnunet.prediction.outputs import Outputs
from factorizer_nnunet.prediction.segmentation import Output, segmentation_of
from factorizer_nnunet.prediction.sliding_window import TileOptions, logit_planes
from factorizer_nnunet.prediction.work import Preprocessed, export, preprocess

QUEUED_EXPORTS = 2  # in addition to those being written: a fast GPU must not fill the memory
_SECONDS_BETWEEN_LOOKS = 1.0  # at cases of other processes


@dataclass(frozen=True)
class PredictionOutcome:
    """What happened to each case.

    Attributes:
        predicted: names of the cases predicted now.
        skipped: names of those that were complete before, or that another process has predicted meanwhile.
        failed: reasons by name.
        kept: why a segmentation that this command did not write as it is was kept, by name.
        set_aside: a line for each case whose old files were renamed.
        warnings: what was unusual in the images, by name of the case; of complete cases, when they were predicted.
        passed_over: names of files and folders in the folder of the images that are not images of the cases.
        postprocessing: the rules by which segmentations are postprocessed, if any.
    """

    predicted: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    set_aside: list[str] = field(default_factory=list)
    warnings: dict[str, str] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)
    postprocessing: Postprocessing | None = None


@dataclass(frozen=True)
class Member:
    """One of the models whose probabilities are averaged.

    Attributes:
        model: what its files say.
        predictor: nnU-Net's, with its weights.
    """

    model: ModelDescription
    predictor: nnUNetPredictor


class Pipeline:
    """Predicts cases.

    Args:
        members: one model or more; labels are decided by the mean of their probabilities.
        outputs: where to write.
        outcome: gets what happens to each case.
        num_readers, num_writers: number of worker processes; with 0, this process does the work.
        progress_bar: whether to show one.
        memory: what the prediction may take in all; a case that needs more fails. None: all of the machine.
        tiles: how tiles are taken and added up.
        verbose: whether to print the time of each stage of a case.
    """

    def __init__(
        self,
        members: Sequence[Member],
        outputs: Outputs,
        outcome: PredictionOutcome,
        *,
        num_readers: int,
        num_writers: int,
        progress_bar: bool,
        memory: MemoryLimit | None,
        tiles: TileOptions,
        verbose: bool = False,
    ) -> None:
        self.members, self.outputs, self.outcome = members, outputs, outcome
        self.models = [member.model for member in members]
        self.num_readers, self.num_writers = num_readers, num_writers
        self.progress_bar, self.memory, self.tiles = progress_bar, memory, tiles
        self.verbose = verbose
        self._exports: dict[Future[float], tuple[str, dict[str, float]]] = {}  # with the seconds of the stages before

    def run(self, cases: Sequence[ImageCase]) -> None:
        """Predict the cases that no other process predicts, then wait for those, or take them over.

        Raises:
            UserError: the disk is full, or the file system cannot lock.
        """
        total, hide = len(cases), None if self.progress_bar else True
        with (
            Claims(self.outputs.folder) as self._claims,
            tqdm(total=total, desc="predicting", unit="case", disable=hide) as self._bar,
        ):
            waiting = list(cases)
            while waiting:
                busy: list[ImageCase] = []
                self._predict(self._claimed(waiting, busy), most=len(waiting))
                if busy and len(busy) == len(waiting):
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
                elif busy:
                    self._bar.write(f"waiting for {count_of(len(busy), 'case')} of another process")
                waiting = busy

    def _claimed(self, cases: Iterable[ImageCase], busy: list[ImageCase]) -> Iterator[ImageCase]:
        """Yield the cases that could be claimed and are still to be predicted; add those of others to ``busy``."""
        readable = readable_by(self.models[0].plans)
        for case in cases:
            if not self._claims.take(case.name):
                busy.append(case)
                continue
            found = state_of(case, self.outputs, readable)
            if found.state is State.CURRENT:  # another process was faster
                self.outcome.skipped.append(case.name)
                self._finished(case.name)
                continue
            try:
                line = make_way(case.name, found, self.outputs)
            except OSError as error:
                self._failed(case.name, error)
                continue
            self.outcome.set_aside.extend([] if line is None else [line])
            yield case

    def _predict(self, cases: Iterator[ImageCase], most: int) -> None:
        others = most - 1  # while one case is predicted; with a single case, processes would only cost memory and time
        num_readers, num_writers = min(self.num_readers, others), min(self.num_writers, others)
        with WorkerPool(num_readers) as readers, WorkerPool(num_writers) as writers:
            for case, read in _read_ahead(cases, readers, self.models, self.memory):
                try:
                    image = image_of(read, case, readers, self.models, self.memory)
                    if image.warnings:
                        self.outcome.warnings[case.name] = "; ".join(image.warnings)
                    predicted, measured, seconds = self._predicted(image)
                except Exception as error:  # concerns this case only: a damaged image, or one too large for the device
                    self._failed(case.name, error)
                    continue
                future = writers.submit(
                    export,
                    case.name,
                    predicted,
                    image.properties[0],
                    image.images,
                    self.models[0],
                    self.outputs,
                    measured,
                    image.warnings,
                )
                self._exports[future] = case.name, seconds
                del image, read, predicted, measured  # the next image may need the memory
                self._collect(most_left=num_writers + QUEUED_EXPORTS if num_writers else 0)
            self._collect(most_left=0)

    def _predicted(self, image: Preprocessed) -> tuple[np.ndarray, list[Measured], dict[str, float]]:
        """Labels on the image's grid, or all logits where these are needed; the passes, likewise; seconds by stage."""
        start = time.perf_counter()
        seconds = {"reading and preprocessing": image.seconds, "network": 0.0}
        outputs, comparisons = [], []
        for member, data, properties in zip(self.members, image.data, image.properties, strict=True):
            shape = data.shape[1:]
            comparison = None
            if self.outputs.needs_passes:
                comparison = comparison_of(member.model, member.predictor, shape)
                comparisons.append(comparison)
            planes = logit_planes(member.predictor, torch.from_numpy(data), self.tiles, comparison)
            outputs.append(Output(_timed(planes, seconds), shape, properties, member.model))
        predicted = outputs[0].take_logits() if self.outputs.needs_logits else segmentation_of(*outputs)
        seconds["labels"] = time.perf_counter() - start - seconds["network"]
        measured = [
            Measured(comparison.result(), statistics_of(data, model), properties, model)
            for comparison, data, properties, model in zip(
                comparisons, image.data, image.properties, self.models, strict=False
            )
        ]
        return predicted, measured, seconds

    def _collect(self, most_left: int) -> None:
        while len(self._exports) > most_left:
            for future in wait(self._exports, return_when=FIRST_COMPLETED).done:
                (name, seconds), error = self._exports.pop(future), future.exception()
                if error is None:
                    self.outcome.predicted.append(name)
                    if self.verbose:
                        stages = {**seconds, "writing": future.result()}
                        self._bar.write(f"{name}: {', '.join(f'{stage} {s:.1f} s' for stage, s in stages.items())}")
                    self._finished(name)
                    continue
                if is_disk_full(self.outputs.folder, error):
                    raise UserError(
                        f"no space left for {name} in {self.outputs.folder} ({reason_of(error)}). Existing predictions "
                        "are complete: free space, then run the same command again"
                    ) from error
                self._failed(name, error)

    def _failed(self, case: str, error: BaseException) -> None:
        self.outcome.failed[case] = reason_of(error)
        self._finished(case)

    def _finished(self, case: str) -> None:
        self._claims.release(case)
        self._bar.update()


def _timed(planes: Iterator[torch.Tensor], seconds: dict[str, float]) -> Iterator[torch.Tensor]:
    """The same planes; the time until each comes is added to the seconds of the network."""
    start = time.perf_counter()
    for plane in planes:
        seconds["network"] += time.perf_counter() - start
        yield plane
        start = time.perf_counter()


def image_of(
    read: Future[Preprocessed],
    case: ImageCase,
    readers: WorkerPool,
    models: Sequence[ModelDescription],
    memory: MemoryLimit | None,
) -> Preprocessed:
    """The case that was read; read again if a process died, since all cases being read then are lost with it."""
    try:
        return read.result()
    except BrokenProcessPool:
        return readers.submit(preprocess, case, models, memory).result()


def reason_of(error: BaseException) -> str:
    """Why a case failed, in one line."""
    if isinstance(error, BrokenProcessPool):
        return "a worker process died, most likely because memory ran out: lower --memory, or -npp and -nps"
    text = " ".join(str(error).split())[:300]
    if isinstance(error, UserError):
        return text
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}"
    advice = ": try --not_on_device" if isinstance(error, torch.OutOfMemoryError) else ""
    return f"{type(error).__name__}: {text}{advice}"


def _read_ahead(
    cases: Iterator[ImageCase], readers: WorkerPool, models: Sequence[ModelDescription], memory: MemoryLimit | None
) -> Iterator[tuple[ImageCase, Future[Preprocessed]]]:
    """Yield each case with its future image; as many as there are processes are read in advance."""
    reading: deque[tuple[ImageCase, Future[Preprocessed]]] = deque()
    for case in cases:
        reading.append((case, readers.submit(preprocess, case, models, memory)))
        if len(reading) > readers.count:
            yield reading.popleft()
    yield from reading
