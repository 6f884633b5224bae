"""The comparison as a Markdown page, parts of which the command prints, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.core.wording import short, today
from factorizer_nnunet.tuning.selection import Comparison, unfit_to_choose

_HEAD = ["iterations", "shifts", "mirroring", "tile step", "Dice", "change [95 %]", "worst case", "s/case", "speed-up"]


def table(found: Comparison, best_only: bool = False) -> str:
    """All settings, or those that no other beats, the stock command's and the chosen one, as a Markdown table."""
    rows = [[*_HEAD, ""]]
    is_chosen = unfit_to_choose(found.rows) is None
    for row in found.rows:
        setting = row.setting
        marks = ["stock command"] * (setting == found.reference) + ["**chosen**"] * (is_chosen and row == found.chosen)
        if best_only and not marks and not row.is_best:
            continue
        change = f"{row.change:+.4f} [{_signed(row.change_low)}, {_signed(row.change_high)}]"
        cells = (
            *(setting.num_iters, setting.num_shifts, setting.mirroring_text, f"{setting.tile_step_size:g}"),
            *(f"{row.dice:.4f}", change, _signed(row.worst_change), short(row.seconds), f"{row.speed_up:.2f}"),
            ", ".join(marks),
        )
        rows.append(list(map(str, cells)))
    return markdown_table(rows)


def page(found: Comparison, model: str, measured: str, rest_seconds: float, figure: str) -> str:
    """The page.

    Args:
        found: the comparison.
        model: its short name.
        measured: a sentence on what was measured, and where.
        rest_seconds: mean time of resampling.
        figure: file name of the plot.
    """
    return f"""# {model}: Dice and time by prediction settings, {today()}

{measured}

Seconds are the median over cases of the time of the sliding window (network, mirroring, blending). The speed-up is the
median of the cases' ratios. Resampling to the image's grid takes another {short(rest_seconds)} s with every setting;
reading and preprocessing are not included. Changes of Dice are relative to the stock command; interval and worst case
are over single cases. The setting was chosen on these cases, so its Dice is slightly optimistic. Times have no
interval: with few cases, or on a busy machine, they may be far off.

![Dice against time per case]({figure})

## Settings that no other beats in both Dice and time, and the stock command

{table(found, best_only=True)}

## All settings

{table(found)}
"""


def as_json(found: Comparison, identity: Mapping[str, Any]) -> str:
    """The comparison for programs; unknown values are null."""
    content = {
        "identity": identity,
        "reference": asdict(found.reference),
        "chosen": asdict(found.chosen.setting),
        "rows": [{key: _known(value) for key, value in asdict(row).items()} for row in found.rows],
    }
    return json.dumps(content, indent=1)


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.4f}"
