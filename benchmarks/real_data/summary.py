"""From results to numbers: means over patients, paired differences with intervals, percentiles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from scipy import stats

from benchmarks.corruptions import missing_slices
from benchmarks.real_data.arms import ARMS, BASELINE
from benchmarks.real_data.data import patient_of
from benchmarks.real_data.pieces import FOLDS, ITERATIONS, SHORT, TIME, Piece, costs_the_same
from factorizer_nnunet.report.statistics import ALPHA, LEVEL, SEED, Estimate, difference, estimate

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
Model = tuple[str, str]  # an arm, and what of its training is equal to the baseline's
Scores = Mapping[str, Mapping[str, Sequence[float | None]]]  # Dice and surface Dice by case and region
DICE, SURFACE = 0, 1
WORST = 5  # percentile of the cases
POWER = 0.8
_INCOMPLETE = missing_slices.__name__
_RESAMPLES = 1000  # for a percentile of the cases


@dataclass(frozen=True)
class Comparison:
    """A budget of a setup at equal iterations or equal time, on the folds that all its arms have finished.

    Attributes:
        results: of each arm, by fold.
        patient: the pattern of patients in names of cases.
    """

    results: Mapping[str, Mapping[int, Mapping[str, Any]]]
    folds: tuple[int, ...]
    patient: str | None

    def scores(self, arm: str) -> Scores:
        """Of all cases of the folds."""
        return {case: own for fold in self.folds for case, own in self.results[arm][fold]["scores"].items()}

    def mean(self, arm: str, region: str | None = None, metric: int = DICE) -> float:
        """Mean over the patients, of a region or of all."""
        return float(np.nanmean(list(self._by_patient(arm, region, metric).values())))

    def worst(self, arm: str) -> float:
        """A low percentile of the cases' mean Dice."""
        return _worst(list(case_means(self.scores(arm)).values()))

    def iterations(self, arm: str) -> int:
        """Of a training, which all folds have had."""
        return int(self.results[arm][self.folds[0]]["iterations"])

    def minutes(self, arm: str) -> float:
        """CPU time of the steps of a training, as the mean over the folds."""
        return float(np.mean([self.results[arm][fold]["seconds"] for fold in self.folds]) / 60)

    def difference(self, arm: str, other: str) -> Estimate:
        """Mean Dice of an arm minus that of another, over the patients."""
        return paired(self._by_patient(arm), self._by_patient(other))

    def is_ahead(self, arm: str, other: str) -> bool:
        """Whether the mean Dice of an arm is above that of another, as of ``is_above``."""
        return is_above(self._by_patient(arm), self._by_patient(other))

    def detectable(self, arm: str, other: str) -> float:
        """The true mean difference that a paired t-test finds with ``POWER``, if patients scatter as here."""
        apart = _differences(self._by_patient(arm), self._by_patient(other))
        freedom = len(apart) - 1
        quantiles = stats.t.ppf([0.975, POWER], freedom).sum()
        return float(quantiles * apart.std(ddof=1) / np.sqrt(len(apart)))

    def on(self, folds: Collection[int]) -> Comparison:
        """The same on some of the folds."""
        return replace(self, folds=tuple(fold for fold in self.folds if fold in folds))

    @property
    def num_patients(self) -> int:
        """How many patients the folds have."""
        return len(self._by_patient(next(iter(self.results))))

    def _by_patient(self, arm: str, region: str | None = None, metric: int = DICE) -> dict[str, float]:
        return patient_means(case_means(self.scores(arm), region, metric), self.patient)


def comparison(
    content: Mapping[str, Any],
    setup: str,
    budget: str,
    equal: str,
    *,
    seed: int = 0,
    arms: Collection[str] = tuple(ARMS),
) -> Comparison | None:
    """The comparison of those arms that have results; None if these share no fold, or are fewer than two."""
    data, _, configuration = setup.partition("/")
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for arm in arms:
        same = arm == BASELINE or costs_the_same(arm, content["setups"][setup]["seconds"])
        used = ITERATIONS if equal == TIME and same else equal
        for fold in FOLDS:
            piece = Piece(
                data=data, configuration=configuration, budget=budget, arm=arm, equal=used, fold=fold, seed=seed
            )
            if piece.key in content["pieces"]:
                found.setdefault(arm, {})[fold] = content["pieces"][piece.key]
    found, folds = _shared(found)
    return Comparison(found, folds, content["setups"][setup]["patient"]) if len(found) > 1 else None


def _shared(found: Mapping[_Key, Mapping[int, _Value]]) -> tuple[dict[_Key, Mapping[int, _Value]], tuple[int, ...]]:
    """All, and the folds that they share; if there are none, without those that lack the first fold of any."""
    kept = dict(found)
    if kept and not set.intersection(*map(set, kept.values())):
        first = min(fold for own in kept.values() for fold in own)
        kept = {key: own for key, own in kept.items() if first in own}
    return kept, tuple(sorted(set.intersection(*map(set, kept.values())))) if kept else ()


def case_means(scores: Scores, region: str | None = None, metric: int = DICE) -> dict[str, float]:
    """A metric of each case: of a region, or the mean over all; NaN where it is undefined in all."""
    means = {}
    for case, regions in scores.items():
        values = [own[metric] for name, own in regions.items() if region in (None, name)]
        known = [value for value in values if value is not None]
        means[case] = sum(known) / len(known) if known else np.nan
    return means


def patient_means(values: Mapping[str, float], pattern: str | None) -> dict[str, float]:
    """Values of patients, from those of their cases, since cases of one patient are not independent."""
    of_patient: dict[str, list[float]] = {}
    for case, value in values.items():
        of_patient.setdefault(patient_of(case, pattern), []).append(value)
    return {patient: float(np.nanmean(own)) for patient, own in of_patient.items()}


def paired(first: Mapping[str, float], second: Mapping[str, float]) -> Estimate:
    """The mean difference of values of the same patients."""
    return estimate(_differences(first, second))


def is_above(first: Mapping[str, float], second: Mapping[str, float]) -> bool:
    """Whether values are higher than others of the same patients: interval above 0, and p < 0.05 (Wilcoxon)."""
    own, others = (np.array([values[patient] for patient in second]) for values in (first, second))
    found = difference(own, others, higher_is_better=True)
    return found.estimate.low > 0 and found.p_value < ALPHA


def _differences(first: Mapping[str, float], second: Mapping[str, float]) -> np.ndarray:
    return np.array([first[patient] - second[patient] for patient in second])


@dataclass(frozen=True)
class Robustness:
    """A model on the corrupted images of its test cases.

    Attributes:
        by_kind: mean Dice by corruption, over strengths and cases.
        by_strength: the same by strength, and a low percentile of these cases.
        worst: a low percentile of all corrupted cases.
        worst_complete: the same of those without missing slices; NaN if there are none.
        patients: mean Dice of each over all corruptions.
        images: mean Dice of each corrupted image of a patient.
        folds: of the test cases.
        clean: mean Dice on the clean images, over the patients.
    """

    by_kind: Mapping[str, float]
    by_strength: Mapping[str, tuple[float, float]]
    worst: float
    worst_complete: float
    patients: Mapping[str, float]
    images: Mapping[str, Sequence[float]]
    folds: tuple[int, ...] = ()
    clean: float = math.nan

    @property
    def mean(self) -> float:
        """Over the patients."""
        return float(np.nanmean(list(self.patients.values())))

    def difference(self, other: Robustness) -> Estimate:
        """Mean Dice minus that of another model, over the patients."""
        return paired(self.patients, other.patients)

    def is_ahead(self, other: Robustness) -> bool:
        """Whether the mean Dice is above that of another model, as of ``is_above``."""
        return is_above(self.patients, other.patients)

    def difference_of_worst(self, other: Robustness) -> Estimate:
        """The low percentile minus that of another model, as ``mean``; with a percentile bootstrap over patients."""
        patients = list(self.images)
        n, low, high = len(patients), math.nan, math.nan
        if n > 1:
            drawn = np.random.default_rng(SEED).choice(patients, (_RESAMPLES, n))
            apart = [self._worst_of(sample) - other._worst_of(sample) for sample in drawn]
            low, high = (float(value) for value in np.quantile(apart, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
        return Estimate(mean=self.worst - other.worst, median=math.nan, defined=n, cases=n, low=low, high=high)

    def _worst_of(self, patients: Sequence[str]) -> float:
        return _worst(np.concatenate([self.images[patient] for patient in patients]))


def robustness_of_models(content: Mapping[str, Any], setup: str, models: Sequence[Model]) -> dict[Model, Robustness]:
    """Of those models of the short budget that have predicted corrupted images, on the folds that all these share."""
    data, _, configuration = setup.partition("/")
    found: dict[Model, dict[int, tuple[Any, Any]]] = {}
    for (arm, equal), fold in itertools.product(models, FOLDS):
        piece = Piece(
            data=data, configuration=configuration, budget=SHORT, arm=arm, equal=equal, fold=fold, corrupted=True
        )
        corrupted, clean = (content["pieces"].get(one.key) for one in (piece, piece.training))
        if corrupted is not None and clean is not None:
            found.setdefault((arm, equal), {})[fold] = corrupted["scores"], clean
    found, folds = _shared(found)
    patient = content["setups"][setup]["patient"]
    summaries = {}
    for model, own in found.items():
        scores = {
            corruption: {case: regions for fold in folds for case, regions in own[fold][0][corruption].items()}
            for corruption in own[folds[0]][0]
        }
        clean = Comparison({model[0]: {fold: own[fold][1] for fold in folds}}, folds, patient)
        summaries[model] = replace(robustness(scores, patient), folds=folds, clean=clean.mean(model[0]))
    return summaries


def robustness(scores: Mapping[str, Scores], pattern: str | None) -> Robustness:
    """Summarise the scores of each corruption, ``KIND_STRENGTH``."""
    means = {corruption: case_means(own) for corruption, own in scores.items()}
    every = [value for own in means.values() for value in own.values()]
    cases: Collection[str] = next(iter(means.values()))
    mean_of = {case: float(np.nanmean([own[case] for own in means.values()])) for case in cases}
    parts = {corruption: corruption.rpartition("_") for corruption in means}
    images: dict[str, list[float]] = {}
    for case in cases:
        images.setdefault(patient_of(case, pattern), []).extend(own[case] for own in means.values())

    def grouped(place: int) -> dict[str, list[float]]:
        groups: dict[str, list[float]] = {}
        for corruption, own in means.items():
            groups.setdefault(parts[corruption][place], []).extend(own.values())
        return groups

    return Robustness(
        {kind: float(np.nanmean(values)) for kind, values in grouped(0).items()},
        {strength: (float(np.nanmean(values)), _worst(values)) for strength, values in grouped(2).items()},
        _worst(every),
        _worst(
            [
                value
                for corruption, own in means.items()
                if parts[corruption][0] != _INCOMPLETE
                for value in own.values()
            ]
        ),
        patient_means(mean_of, pattern),
        images,
    )


def _worst(values: Sequence[float] | np.ndarray) -> float:
    return float(np.nanpercentile(values, WORST)) if len(values) else math.nan


def shown(found: Estimate) -> str:
    """A difference with its interval, as text."""
    if math.isnan(found.low):
        return f"{found.mean:+.3f}"
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
