"""The comparison in words and numbers: a Markdown page, which is also what the command prints of it, and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from factorizer_nnunet.tuning.selection import Row
from factorizer_nnunet.tuning.settings import Setting

_HEAD = "| iterations | shifts | mirroring | tile step | Dice | change [95 %] | worst case | s/case | speed-up | |"


def table(rows: Sequence[Row], reference: Setting, chosen: Setting) -> str:
    """Rows as Markdown."""
    lines = [_HEAD, "|" + "---|" * (_HEAD.count("|") - 1)]
    for row in rows:
        setting = row.setting
        marks = ["stock command"] * (setting == reference) + ["**chosen**"] * (setting == chosen)
        change = f"{row.change:+.4f} [{_signed(row.change_low)}, {_signed(row.change_high)}]"
        cells = (
            *(setting.num_iters, setting.num_shifts, setting.mirroring_words, f"{setting.tile_step_size:g}"),
            *(f"{row.dice:.4f}", change, _signed(row.worst_change), f"{row.seconds:.3g}", f"{row.speed_up:.2f}"),
            ", ".join(marks),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def best_rows(rows: Sequence[Row], reference: Setting, chosen: Setting) -> list[Row]:
    """Those that nothing beats, with the stock command's and the chosen one."""
    return [row for row in rows if row.is_best or row.setting in (reference, chosen)]


def page(
    rows: Sequence[Row], reference: Setting, chosen: Setting, measured: str, rest_seconds: float, figure: str
) -> str:
    """The page.

    Args:
        rows: of all settings.
        reference: the stock command's.
        chosen: the one that was taken.
        measured: a sentence on what was measured, and where.
        rest_seconds: mean time of resampling.
        figure: file name of the plot.
    """
    return f"""# Dice and time of ways to predict

{measured}

Seconds are those of the sliding window (network, mirroring, blending), the median over cases, and the speed-up is the
median of the cases' ratios; resampling to the image's grid takes {rest_seconds:.3g} s more with every setting, and
reading and preprocessing come on top. Changes of Dice are
against the stock command, the interval and the worst case over single cases. The setting was chosen on these cases, so
its Dice is a little flattered. Times have no interval: from few cases, or on a machine with other work,
they may be far off.

![Dice against time per case]({figure})

## Settings that no other beats in both, and the stock command

{table(best_rows(rows, reference, chosen), reference, chosen)}

## All settings

{table(rows, reference, chosen)}
"""


def as_json(rows: Sequence[Row], reference: Setting, chosen: Setting, identity: Mapping[str, Any]) -> str:
    """The same for programs; what is not known is null."""
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
