"""What an evaluation found, as values: one number per case, region and metric, and every reference lesion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from factorizer_nnunet.evaluation.metrics import Metric


@dataclass(frozen=True)
class Score:
    """One number; NaN where the metric is not defined for the case."""

    case: str
    region: str
    metric: str  # the key of a `Metric`
    value: float


@dataclass(frozen=True)
class Lesion:
    """One lesion of a reference and whether the prediction has it."""

    case: str
    region: str
    volume_ml: float
    detected: bool


@dataclass(frozen=True)
class Files:
    """Where a case's masks were read from."""

    reference: str
    prediction: str


@dataclass(frozen=True)
class CaseMean:
    """Mean and median over the `defined` among all `cases`; NaN where none is."""

    mean: float
    median: float
    defined: int
    cases: int

    @property
    def count(self) -> str:
        """How many cases the mean is over, such as "47 of 50"."""
        return f"{self.defined} of {self.cases}"


@dataclass(frozen=True)
class Summary(CaseMean):
    """A metric over cases with the standard deviation of the sample, with n - 1; NaN for fewer than two."""

    std: float


def mean_over_cases(values: np.ndarray) -> CaseMean:
    """Of values (cases,), NaN where the metric is not defined."""
    known = values[~np.isnan(values)]
    return CaseMean(
        mean=float(known.mean()) if known.size else float("nan"),
        median=float(np.median(known)) if known.size else float("nan"),
        defined=int(known.size),
        cases=int(values.size),
    )


@dataclass(frozen=True)
class Scores:
    """All scores of one folder of predictions; `rows` hold each case, region and metric once."""

    scheme: str
    metrics: tuple[Metric, ...]
    regions: tuple[str, ...]
    labels: Mapping[str, tuple[int, ...]]  # values of each region
    keys: Mapping[str, str]  # what nnU-Net calls each region in its summary.json
    cases: tuple[str, ...]
    files: Mapping[str, Files]  # of each case
    rows: tuple[Score, ...]
    lesions: tuple[Lesion, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)  # how it was counted, for readers; fit for JSON

    @cached_property
    def _table(self) -> dict[tuple[str, str, str], float]:
        return {(row.case, row.region, row.metric): row.value for row in self.rows}

    def metric(self, key: str) -> Metric:
        """The record of a metric; KeyError if these scores do not have it."""
        return {metric.key: metric for metric in self.metrics}[key]

    def value(self, case: str, region: str, metric: str) -> float:
        """One score; KeyError if there is no such case, region or metric."""
        return self._table[case, region, metric]

    def values(self, region: str, metric: str) -> np.ndarray:
        """A metric of all cases, (cases,), in their order."""
        return np.array([self._table[case, region, metric] for case in self.cases])

    def summary(self, region: str, metric: str) -> Summary:
        """Mean, median and standard deviation of the cases for which the metric is defined."""
        values = self.values(region, metric)
        known = values[~np.isnan(values)]
        std = float(known.std(ddof=1)) if known.size > 1 else float("nan")
        return Summary(**vars(mean_over_cases(values)), std=std)
