"""Dice of a fold's validation cases with every subset of channels: the subsets, the file, and the table of means."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json

FILE = "factorizer_channel_subsets.json"  # in the folder of a fold
_JOIN = " + "

Dice = Mapping[str, float | None]  # by region; None if it is in neither reference nor prediction


@dataclass(frozen=True, kw_only=True)
class CaseScores:
    """One case.

    Attributes:
        seconds: that all its predictions took.
        dice: by subset, such as "T1 + T2".
    """

    seconds: float
    dice: dict[str, Dice]


@dataclass(frozen=True, kw_only=True)
class SubsetScores:
    """The validation cases of a fold, as far as they have been predicted.

    Attributes:
        checkpoint: SHA-256 of the file with the weights.
        mirroring: whether predictions were averaged over mirrored images.
        channels: their names.
    """

    checkpoint: str
    mirroring: bool
    channels: tuple[str, ...]
    cases: dict[str, CaseScores] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Write the file completely or not at all.

        Raises:
            OSError: it cannot be written.
        """
        write_text_atomically(file, json.dumps(asdict(self), indent=1) + "\n")


def read_subset_scores(file: Path) -> SubsetScores | None:
    """Read a file; None if there is none.

    Raises:
        UserError: it is damaged.
    """
    content = read_complete_json(file)
    if content is None:
        return None
    try:
        cases = {name: CaseScores(**case) for name, case in content.pop("cases").items()}
        scores = SubsetScores(**{**content, "channels": tuple(content["channels"])}, cases=cases)
        wanted = set(subsets(scores.channels))
        if any(set(case.dice) != wanted for case in cases.values()):
            raise ValueError("not every subset of channels")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} is not as this version writes it ({error}). Remove it to have it made again"
        ) from error
    return scores


def subsets(names: Sequence[str]) -> dict[str, frozenset[int]]:
    """Every subset but the empty one, largest first: the numbers of absent channels by the names of the others."""
    numbers = range(len(names))
    kept = [chosen for size in reversed(numbers) for chosen in itertools.combinations(numbers, size + 1)]
    return {_JOIN.join(names[number] for number in chosen): frozenset(numbers) - {*chosen} for chosen in kept}


@dataclass(frozen=True, kw_only=True)
class SubsetRow:
    """One subset of channels: means over cases, in percent.

    Attributes:
        dice: by region; None if no case has it.
        mean: over regions.
        drop: of the mean, compared with all channels, in points.
    """

    channels: str
    dice: dict[str, float | None]
    mean: float | None
    drop: float | None


def subset_rows(channels: Sequence[str], cases: Iterable[CaseScores]) -> list[SubsetRow]:
    """The means of all subsets, that of all channels first."""
    scored = list(cases)
    rows: list[SubsetRow] = []
    for subset in subsets(channels):
        dice = mean_by_region(case.dice[subset] for case in scored)
        mean = mean_of(dice.values())
        full = rows[0].mean if rows else mean
        drop = None if mean is None or full is None else full - mean
        rows.append(SubsetRow(channels=subset, dice=dice, mean=mean, drop=drop))
    return rows


def mean_by_region(cases: Iterable[Dice]) -> dict[str, float | None]:
    """The mean over the cases that have a region, in percent."""
    scored = list(cases)
    regions = dict.fromkeys(region for dice in scored for region in dice)
    means = {region: mean_of(dice.get(region) for dice in scored) for region in regions}
    return {region: None if mean is None else 100 * mean for region, mean in means.items()}


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def cells(row: SubsetRow) -> list[str]:
    """The cells of a row of a table, after those of ``heads``."""
    return [row.channels, *map(_points, (*row.dice.values(), row.mean, row.drop))]


def heads(rows: Sequence[SubsetRow]) -> list[str]:
    """The head of a table of these rows."""
    return ["channels", *rows[0].dice, "mean", "drop"]


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
