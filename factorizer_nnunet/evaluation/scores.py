"""The result of an evaluation: a value for each case, region and metric, and every reference lesion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from factorizer_nnunet.evaluation.metrics import Metric


@dataclass(frozen=True)
class Lesion:
    """A reference lesion and whether the prediction has detected it."""

    case: str
    region: str
    volume_ml: float
    detected: bool


@dataclass(frozen=True)
class Files:
    """The label files of a case."""

    reference: str
    prediction: str


@dataclass(frozen=True)
class CaseMean:
    """Mean and median over the `defined` among all `cases`; NaN if there are none."""

    mean: float
    median: float
    defined: int
    cases: int

    @property
    def count(self) -> str:
        """The number of cases in the mean, such as "47 of 50"."""
        return f"{self.defined} of {self.cases}"


@dataclass(frozen=True)
class Summary(CaseMean):
    """A metric over cases with the sample standard deviation (n - 1); NaN for fewer than two cases."""

    std: float


def mean_over_cases(values: np.ndarray) -> CaseMean:
    """Mean and median of values (cases,), which are NaN where the metric is undefined."""
    known = values[~np.isnan(values)]
    return CaseMean(
        mean=float(known.mean()) if known.size else float("nan"),
        median=float(np.median(known)) if known.size else float("nan"),
        defined=int(known.size),
        cases=int(values.size),
    )


@dataclass(frozen=True)
class Scores:
    """All scores of an evaluation."""

    scheme: str
    metrics: tuple[Metric, ...]
    labels: Mapping[str, tuple[int, ...]]  # label values of each region
    keys: Mapping[str, str]  # the name of each region in nnU-Net's summary.json
    cases: tuple[str, ...]
    files: Mapping[str, Files]  # of each case
    table: Mapping[tuple[str, str, str], float]  # by case, region and key of the metric; NaN if undefined
    lesions: tuple[Lesion, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)  # how cases were scored, for readers; JSON values

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of the regions, in order."""
        return tuple(self.labels)

    def metric(self, key: str) -> Metric:
        """The record of a metric; KeyError if these scores do not have it."""
        return {metric.key: metric for metric in self.metrics}[key]

    def value(self, case: str, region: str, metric: str) -> float:
        """One score; KeyError if the case, region or metric does not exist."""
        return self.table[case, region, metric]

    def values(self, region: str, metric: str) -> np.ndarray:
        """A metric of all cases, (cases,), in their order."""
        return np.array([self.table[case, region, metric] for case in self.cases])

    def summary(self, region: str, metric: str) -> Summary:
        """Mean, median and standard deviation over the cases in which the metric is defined."""
        values = self.values(region, metric)
        known = values[~np.isnan(values)]
        std = float(known.std(ddof=1)) if known.size > 1 else float("nan")
        return Summary(**vars(mean_over_cases(values)), std=std)
