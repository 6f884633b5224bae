"""Section of the page: models that were trained several times, and how much their scores differ by chance."""

from __future__ import annotations

import math

import numpy as np

from factorizer_nnunet.evaluation.metrics import Metric
from factorizer_nnunet.nnunet.model_name import first_of_repeats
from factorizer_nnunet.pages.markup import cell, note, number, table, text_of
from factorizer_nnunet.report.study import Group, Scored

_UNKNOWN = "not defined in any case"


def first_trainings(group: Group) -> list[Scored]:
    """The first training of each model in the group."""
    return [scored for scored in group.scored if repeats_of(group, scored)[0] is scored]


def repeats_of(group: Group, scored: Scored) -> list[Scored]:
    """The results of all trainings of the same model, one of each, itself included, in order."""
    own = _first(scored)
    if own is None:
        return [scored]
    found: dict[int, Scored] = {}
    for one in (scored, *group.scored):
        if _first(one) == own:
            found.setdefault(_number_of(one), one)
    return [found[number] for number in sorted(found)]


def spread(group: Group, scored: Scored, region: str, metric: Metric) -> float:
    """The largest difference between the means of two trainings of a model; NaN if there is only one."""
    means = [group.estimate(one, region, metric).mean for one in repeats_of(group, scored)]
    return float(np.ptp(means)) if len(means) > 1 else math.nan


def repeats_section(group: Group) -> str:
    """The means of each training, and their spread; "" if no model was trained several times."""
    repeated = [one for one in first_trainings(group) if len(repeats_of(group, one)) > 1]
    if not repeated:
        return ""
    numbers = sorted({_number_of(one) for first in repeated for one in repeats_of(group, first)})
    heads = ["model", "region", "metric", *(f"training {number}" for number in numbers), "spread"]
    rows = []
    for scored in repeated:
        repeats = {_number_of(one): one for one in repeats_of(group, scored)}
        for region in group.regions:
            for metric in group.primary:
                means = {number: group.estimate(one, region, metric).mean for number, one in repeats.items()}
                cells = "".join(_number(means[n], metric) if n in means else "<td></td>" for n in numbers)
                found = _number(spread(group, scored, region, metric), metric)
                rows.append(f"<tr>{cell(scored.title)}{cell(region)}{cell(metric.title_and_unit)}{cells}{found}</tr>")
    lead = (
        "The same models, trained several times from other random weights and samples. The spread is the largest "
        "difference between two of these means: a difference between models that is not larger may be chance, however "
        "small its p is, and is marked with ≈ in the comparison, which is of the first trainings."
    )
    return note(text_of(lead)) + table(heads, rows)


def _number_of(scored: Scored) -> int:
    """The number of the training that a result is of; 1 where it is not known."""
    name = None if scored.result.model is None else scored.result.model.name
    return 1 if name is None else first_of_repeats(name)[1]


def _first(scored: Scored) -> object:
    """What all trainings of a model have in common; None if the model is not known.

    The place below the model's folder, too: its postprocessed predictions are not another training.
    """
    result = scored.result
    name = None if result.model is None else result.model.name
    if result.model is None or name is None:
        return None
    folder, model = result.folder.resolve(), result.model.path.resolve()
    below = folder.relative_to(model) if folder.is_relative_to(model) else None
    return first_of_repeats(name)[0], result.kind, below


def _number(value: float, metric: Metric) -> str:
    return number(None if math.isnan(value) else value, metric.shown(value), undefined=_UNKNOWN)
