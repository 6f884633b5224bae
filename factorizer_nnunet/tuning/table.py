"""The comparison as a Markdown page, parts of which the command prints, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from factorizer_nnunet.tuning.search_space import PredictionSettings
from factorizer_nnunet.tuning.selection import Row

_HEAD = "| iterations | shifts | mirroring | tile step | Dice | change [95 %] | worst case | s/case | speed-up | |"


def table(rows: Sequence[Row], reference: PredictionSettings, chosen: PredictionSettings) -> str:
    """Rows as a Markdown table."""
    lines = [_HEAD, "|" + "---|" * (_HEAD.count("|") - 1)]
    for row in rows:
        setting = row.setting
        marks = ["stock command"] * (setting == reference) + ["**chosen**"] * (setting == chosen)
        change = f"{row.change:+.4f} [{_signed(row.change_low)}, {_signed(row.change_high)}]"
        cells = (
            *(setting.num_iters, setting.num_shifts, setting.mirroring_text, f"{setting.tile_step_size:g}"),
            *(f"{row.dice:.4f}", change, _signed(row.worst_change), f"{row.seconds:.3g}", f"{row.speed_up:.2f}"),
            ", ".join(marks),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def best_table(rows: Sequence[Row], reference: PredictionSettings, chosen: PredictionSettings) -> str:
    """The settings that no other beats, the stock command's and the chosen one, as a Markdown table."""
    best = [row for row in rows if row.is_best or row.setting in (reference, chosen)]
    return table(best, reference, chosen)


def page(
    rows: Sequence[Row],
    reference: PredictionSettings,
    chosen: PredictionSettings,
    measured: str,
    rest_seconds: float,
    figure: str,
) -> str:
    """The page.

    Args:
        rows: of all settings.
        reference: the stock command's.
        chosen: the chosen one.
        measured: a sentence on what was measured, and where.
        rest_seconds: mean time of resampling.
        figure: file name of the plot.
    """
    return f"""# Dice and time by prediction settings

{measured}

Seconds are the median over cases of the time of the sliding window (network, mirroring, blending). The speed-up is the
median of the cases' ratios. Resampling to the image's grid takes another {rest_seconds:.3g} s with every setting;
reading and preprocessing are not included. Changes of Dice are relative to the stock command; interval and worst case
are over single cases. The setting was chosen on these cases, so its Dice is slightly optimistic. Times have no
interval: with few cases, or on a busy machine, they may be far off.

![Dice against time per case]({figure})

## Settings that no other beats in both Dice and time, and the stock command

{best_table(rows, reference, chosen)}

## All settings

{table(rows, reference, chosen)}
"""


def as_json(
    rows: Sequence[Row], reference: PredictionSettings, chosen: PredictionSettings, identity: Mapping[str, Any]
) -> str:
    """The comparison for programs; unknown values are null."""
    content = {
        "identity": identity,
        "reference": asdict(reference),
        "chosen": asdict(chosen),
        "rows": [{key: _known(value) for key, value in asdict(row).items()} for row in rows],
    }
    return json.dumps(content, indent=1)


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.4f}"
