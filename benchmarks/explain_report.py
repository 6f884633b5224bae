"""The page of ``benchmarks.explain_components``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measured_part import replace_measured

CLASSES = ("Anterior", "Posterior")


def strength(rows: Sequence[Mapping[str, Any]], cases: Sequence[str], name: str) -> dict[str, float]:
    """Mean over cases of each map's AUC for a class."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["case"] in cases and row["auc"][name] is not None:
            values.setdefault(row["name"], []).append(row["auc"][name])
    return {key: float(np.mean(found)) for key, found in values.items()}


def best_of(
    rows: Sequence[Mapping[str, Any]], cases: Sequence[str], name: str, stage: str = ""
) -> tuple[str, int, float]:
    """The map chosen on the first half of the cases, its sign, and its separation on the second half."""
    half = len(cases) // 2
    chosen_on = {k: v for k, v in strength(rows, cases[:half], name).items() if k.startswith(stage)}
    best = max(chosen_on, key=lambda key: abs(chosen_on[key] - 0.5))
    sign = 1 if chosen_on[best] > 0.5 else -1
    scored = strength(rows, cases[half:], name)[best]
    return best, sign, scored if sign > 0 else 1 - scored


def write_report(found: Mapping[str, Any], docs: Path) -> None:
    """Put the measured part into ``explain.md``, between its marks."""
    replace_measured(docs / "explain.md", "benchmarks/explain_components.py", _measured(found))


def _measured(found: Mapping[str, Any]) -> str:
    cases = found["cases"]
    half = len(cases) // 2
    lines = [
        f"Fold 0, {found['iterations']} iterations for each network, {half} validation cases to choose, "
        f"{len(cases) - half} others to score; no mirroring. "
        "Separation is the AUC against the *true* structure, or 1 − AUC for a map that avoids it. "
        f"Machine: {found['machine']}.",
        "",
        "| maps | how many | " + " | ".join(f"best for {name} | separation" for name in CLASSES) + " |",
        "|---|---|" + "---|---|" * len(CLASSES),
    ]
    networks = [name for name in found if isinstance(found[name], Mapping) and "rows" in found[name]]
    for network in networks:
        rows = found[network]["rows"]
        what = "channels of all stages" if network == "PlainConvUNet" else "components of all stages"
        for stage, told in (("", what), ("encoder-3", f"{what.split()[0]} of encoder-3 alone")):
            count = len({row["name"] for row in rows if row["name"].startswith(stage)})
            cells = []
            for name in CLASSES:
                best, sign, value = best_of(rows, cases, name, stage)
                cells.append(f"{best.replace('_', ' ')}{'' if sign > 0 else ' (avoids it)'} | {value:.3f}")
            lines.append(f"| {network}: {told} | {count} | {' | '.join(cells)} |")
    lines += ["", "Deletion, mean change of the true Dice over the cases tested:", ""]
    lines += [
        "| network | class | best component above, deleted | head whose deletion costs most | its AUC |",
        "|---|---|---|---|---|",
    ]
    for network in networks:
        rows = [row for row in found[network]["rows"] if row.get("dice_change")]
        for name in CLASSES if rows else ():
            changes: dict[str, list[float]] = {}
            for row in rows:
                if row["dice_change"][name] is not None:
                    changes.setdefault(row["name"], []).append(row["dice_change"][name])
            mean = {key: float(np.mean(values)) for key, values in changes.items()}
            best = best_of(found[network]["rows"], cases, name)[0]
            worst = min(mean, key=mean.get)
            auc = strength(found[network]["rows"], cases[half:], name)[worst]
            dearest = f"{worst.replace('_', ' ')}: {mean[worst]:+.4f}"
            lines.append(f"| {network} | {name} | {mean[best]:+.4f} | {dearest} | {auc:.3f} |")
    return "\n".join(lines) + "\n"
