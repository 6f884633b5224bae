"""The section about models that predict without some channels: the Dice with every subset of channels."""

from __future__ import annotations

from collections.abc import Mapping

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import stamp_of
from factorizer_nnunet.evaluation.subset_scores import (
    FILE,
    SubsetRow,
    SubsetScores,
    heads,
    read_subset_scores,
    subset_rows,
)
from factorizer_nnunet.nnunet.absent_channels import drops_channels
from factorizer_nnunet.nnunet.model_folder import FoldFolder
from factorizer_nnunet.pages.markup import cell, csv_button, note, number, table, text_of
from factorizer_nnunet.report.folders import CROSS_VALIDATION
from factorizer_nnunet.report.results import Result
from factorizer_nnunet.report.study import Group

_UNDEFINED = "no case has the region"


def subsets_section(group: Group) -> str:
    """A table for each model that was trained to predict without some channels; "" without such a model."""
    results = [scored.result for scored in group.scored]
    parts = [_of_result(result, len(results) > 1) for result in results if result.kind == CROSS_VALIDATION]
    return "".join(parts)


def _of_result(result: Result, titled: bool) -> str:
    name = None if result.model is None else result.model.name
    if result.model is None or name is None or not drops_channels(name.trainer):
        return ""
    title = f"<h3>{text_of(result.title)}</h3>" if titled else ""
    command = f"factorizer-nnunet channel-subsets -m {result.model.path}"
    try:
        folds = {fold.name: scores for fold in result.model.numbered_folds() if (scores := _scores(fold)) is not None}
    except UserError as error:
        return title + note(text_of(error))
    cases = [case for scores in folds.values() for name, case in scores.cases.items() if name in result.names]
    if not cases:
        advice = f"To predict with every subset of channels: <code>{text_of(command)}</code>."
        return title + note(f"Not measured with these weights. {advice}")
    rows = subset_rows(next(iter(folds.values())).channels, cases)
    return title + _lead(result, folds, len(cases)) + csv_button("channel_subsets") + _table(rows)


def _scores(fold: FoldFolder) -> SubsetScores | None:
    """What was measured of a fold with its present weights, where these are there; None if nothing was."""
    scores, checkpoint = read_subset_scores(fold.path / FILE), fold.checkpoint()
    is_older = scores is not None and checkpoint.is_file() and stamp_of(checkpoint).sha256 != scores.checkpoint
    return None if is_older else scores


def _lead(result: Result, folds: Mapping[str, SubsetScores], count: int) -> str:
    missing = f" of {len(result.names)}" if count < len(result.names) else ""
    return note(
        f"Dice in percent with each subset of the channels, mean over {count}{missing} cases, each predicted by the "
        f"fold that was not trained on it{_mirroring(folds)}. Drop: of the mean over regions, compared with all "
        "channels, in points."
    )


def _mirroring(folds: Mapping[str, SubsetScores]) -> str:
    """Which folds averaged over mirrored images, unless all did: each may have been measured in its own way."""
    mirrored = [name for name, scores in folds.items() if scores.mirroring]
    if not mirrored:
        return ", without mirroring"
    return "" if len(mirrored) == len(folds) else f", mirrored only by fold {', '.join(mirrored)}"


def _table(rows: list[SubsetRow]) -> str:
    lines = []
    for row in rows:
        values = (*row.dice.values(), row.mean, row.drop)
        numbers = "".join(
            number(value, None if value is None else f"{value:.1f}", undefined=_UNDEFINED) for value in values
        )
        lines.append(f"<tr>{cell(row.channels)}{numbers}</tr>")
    return table(heads(rows), lines, sortable=True)
