"""The pieces of the study: single trainings, and predictions of corrupted images; in the order of what they say."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.corruptions import CORRUPTIONS, STRENGTHS
from benchmarks.real_data.arms import ARMS, BASELINE
from benchmarks.real_data.candidates import ALL_ARMS
from benchmarks.real_data.data import DataSet

ITERATIONS, TIME = "iterations", "time"  # what is equal to the baseline's
EQUAL = {ITERATIONS: "equal iterations", TIME: "equal training time"}
SHORT, LONG = "short", "long"
LONGER = 10  # how many times as long the long budget is
SEARCH_FOLD = 1  # on which ``benchmarks.default_search`` chooses; the study does not report it
FOLDS = tuple(fold for fold in range(5) if fold != SEARCH_FOLD)
SAME = 0.1  # an iteration whose cost differs by less costs the same
KINDS = tuple(kind for kind in CORRUPTIONS if kind != "wrong_channel")
_FIRST = ("default", BASELINE)
_OVERHEAD_SECONDS = 60.0  # of a training's start and validation, until it is measured
_STEPS_PER_CASE = 4  # how many training iterations the prediction of a case takes


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One training with its validation; or, with ``corrupted``, the predictions of its corrupted test images.

    Attributes:
        equal: what its length has in common with the baseline's, ITERATIONS or TIME.
    """

    data: str
    configuration: str
    budget: str
    arm: str
    equal: str
    fold: int = 0
    seed: int = 0
    corrupted: bool = False

    @property
    def setup(self) -> str:
        """The data set and configuration, for which all is the same but the network, recipe and length."""
        return f"{self.data}/{self.configuration}"

    @property
    def key(self) -> str:
        """Its name in the results."""
        name = f"{self.setup}/{self.budget}/{self.arm}/equal_{self.equal}/fold_{self.fold}/seed_{self.seed}"
        return f"{name}/corrupted" if self.corrupted else name

    @property
    def training(self) -> Piece:
        """The training that a piece needs."""
        return replace(self, corrupted=False)


def stages(data: DataSet, arms: Collection[str]) -> list[list[Piece]]:
    """All pieces of a data set: later stages follow after the earlier ones of all data sets.

    Fold 0 of all arms; its corrupted images; the other folds; their corrupted images; the long budget; two more seeds.
    """
    found: list[list[Piece]] = [[], [], [], [], [], []]
    for configuration in data.configurations:
        short, long = (
            [
                Piece(data=data.key, configuration=configuration, budget=budget, arm=arm, equal=equal)
                for arm in ARMS
                if arm in arms
                for equal in ((ITERATIONS,) if arm == BASELINE else (ITERATIONS, TIME))
            ]
            for budget in (SHORT, LONG)
        )
        for trainings in (short, long):  # what is compared most often first
            trainings.sort(key=lambda piece: (piece.arm not in _FIRST, piece.arm in _FIRST and piece.equal == TIME))
        compared = [piece for piece in short if piece.arm in (*_FIRST, "unet_ours", "no_nmf")]
        found[0] += short
        found[1] += [replace(piece, corrupted=True) for piece in compared]
        found[2] += [replace(piece, fold=fold) for fold in FOLDS[1:] for piece in short]
        found[3] += [replace(piece, fold=fold, corrupted=True) for fold in FOLDS[1:] for piece in compared]
        found[4] += long
        found[5] += [replace(piece, seed=seed) for seed in (1, 2) for piece in short]
    return found


def pieces(data_sets: Collection[DataSet], arms: Collection[str], costs: Mapping[str, Any]) -> list[Piece]:
    """All pieces of some data sets in their order, without those whose training is another one's.

    Args:
        costs: seconds of an iteration by arm, of each setup where they are measured.
    """
    of_all = zip(*(stages(data, arms) for data in data_sets), strict=True)
    ordered = [piece for stage in of_all for own in stage for piece in own]
    return [piece for piece in ordered if not is_other(piece, costs.get(piece.setup, {}))]


def is_other(piece: Piece, cost: Mapping[str, float]) -> bool:
    """Whether a training of equal time is that of equal iterations, since an iteration costs the same."""
    return piece.equal == TIME and costs_the_same(piece.arm, cost)


def costs_the_same(arm: str, cost: Mapping[str, float]) -> bool:
    """Whether an iteration costs what the baseline's does; measurements differ by some percent."""
    return abs(_ratio(arm, cost) - 1) < SAME


def _ratio(arm: str, cost: Mapping[str, float]) -> float:
    """How many iterations of an arm take the time of one of the baseline's."""
    return cost[BASELINE] / cost[arm] if arm in cost else 1 / ALL_ARMS[arm].cost


def budget(name: str, data: DataSet) -> int:
    """Iterations of the baseline."""
    return data.short * {SHORT: 1, LONG: LONGER}[name]


def epoch(name: str, data: DataSet) -> int:
    """Iterations of an epoch: nnU-Net's number in trainings that have at least 20 of these, else fewer."""
    return next((one for one in (250, 50) if budget(name, data) >= 20 * one), 10)


def length(piece: Piece, data: DataSet, cost: Mapping[str, float]) -> int:
    """Iterations of a training: complete epochs, one at least.

    Args:
        cost: seconds of an iteration by arm; without them, guesses are used.
    """
    one = epoch(piece.budget, data)
    epochs = budget(piece.budget, data) / one
    if piece.equal == ITERATIONS:
        epochs /= ALL_ARMS[piece.arm].batches
    elif not costs_the_same(piece.arm, cost):
        epochs *= _ratio(piece.arm, cost)
    return max(1, round(epochs)) * one


def trainer_name(piece: Piece, data: DataSet, cost: Mapping[str, float]) -> str:
    """The name of the trainer, which says length and seed."""
    one = epoch(piece.budget, data)
    arm, epochs = ALL_ARMS[piece.arm], length(piece, data, cost) // one
    return f"{arm.trainer}_{epochs}epochs_{one}iters{arm.suffix}_seed{piece.seed}"


def seconds(piece: Piece, data: DataSet, results: Mapping[str, Any]) -> float:
    """CPU seconds that a piece takes, as estimated from what has been measured."""
    setup = results["setups"].get(piece.setup, {})
    cost = setup.get("seconds", {})
    step = cost.get(piece.arm, data.configurations[piece.configuration] * ALL_ARMS[piece.arm].cost)
    step *= _slowdown(piece.setup, cost, results["pieces"])
    if piece.corrupted:
        images = len(KINDS) * len(STRENGTHS) * setup.get("cases", 50) / 5
        return images * (1 + step * _STEPS_PER_CASE)
    own = list(_overheads(piece, results["pieces"]))
    return length(piece, data, cost) * step + (sum(own) / len(own) if own else _OVERHEAD_SECONDS)


def _slowdown(setup: str, cost: Mapping[str, float], done: Mapping[str, Any]) -> float:
    """How much longer iterations have taken in trainings than when they were measured in turns."""
    times = list(times_of_trainings(setup, cost, done))
    return sum(spent for spent, _ in times) / sum(expected for _, expected in times) if times else 1.0


def times_of_trainings(setup: str, cost: Mapping[str, float], done: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    """Seconds that the steps of a setup's trainings took, and that they would have taken at the measured costs."""
    for key, result in done.items():
        if key.startswith(f"{setup}/") and "seconds" in result and (step := cost.get(key.split("/")[3])):
            yield result["seconds"], result["iterations"] * step


def _overheads(piece: Piece, done: Mapping[str, Any]) -> Iterator[float]:
    """What trainings of the same network took besides their steps, of those that were not stopped."""
    for key, result in done.items():
        is_alike = key.startswith(f"{piece.setup}/") and f"/{piece.arm}/" in key
        if is_alike and result["command_seconds"] > result.get("seconds", math.inf):
            yield result["command_seconds"] - result["seconds"]
