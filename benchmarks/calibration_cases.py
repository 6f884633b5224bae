"""How many out-of-fold cases ``calibrate`` needs to estimate the Dice of a region.

    python -m benchmarks.calibration_cases hippocampus=MODEL_FOLDER heart=OTHER_MODEL_FOLDER

Of each model that has been calibrated, random subsets of the out-of-fold cases are fitted, and the others estimated.
Nothing is predicted. Writes docs/measured/calibration_cases.json and .md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from factorizer_nnunet.calibration.calibration_file import features_of
from factorizer_nnunet.calibration.dice_model import fit_dice
from factorizer_nnunet.calibration.fit import OutOfFoldCase
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.quality.out_of_fold import MEASUREMENTS_FILE, known_cases

OUT = Path(__file__).resolve().parents[1] / "docs" / "measured" / "calibration_cases.json"
COUNTS = (10, 12, 15, 20, 30)
REPEATS = 60
_LEAST_OTHERS = 4  # cases that are estimated
_LEAD = """\
# Measured: cases to calibrate on

Written by `python -m benchmarks.calibration_cases` (see `--help`): random subsets of a model's out-of-fold cases are
fitted, 60 of each size, and the Dice of the other cases estimated. Error is the mean distance of estimate and Dice,
next to that of the subset's median Dice; coverage is the share of Dice within the intervals of 90 %, and width the mean
of their widths.
"""


def by_count(features: np.ndarray, dice: np.ndarray) -> dict[int, dict[str, float]]:
    """What subsets of each size lead to.

    Args:
        features: (cases, features).
        dice: (cases,).
    """
    found = {}
    for count in COUNTS:
        if count > len(dice) - _LEAST_OTHERS:
            break
        rng = np.random.default_rng(0)
        rows = []
        for _ in range(REPEATS):
            order = rng.permutation(len(dice))
            fitted, others = order[:count], order[count:]
            model, _ = fit_dice(features[fitted], dice[fitted])
            usual = np.median(dice[fitted])
            for true, estimate in zip(dice[others], map(model.estimate, features[others]), strict=True):
                inside = estimate.low - 1e-9 <= true <= estimate.high + 1e-9
                rows.append((abs(estimate.dice - true), abs(usual - true), inside, estimate.high - estimate.low))
        found[count] = dict(zip(("error", "of_median", "coverage", "width"), np.mean(rows, 0).tolist(), strict=True))
    return found


def regions_of(cases: Sequence[OutOfFoldCase]) -> dict[str, dict[str, Any]]:
    """The cases and results of each region."""
    found = {}
    for region in cases[0].record.regions:
        pairs = [
            (features_of(passes, case.record.num_passes > 1), dice)
            for case in cases
            if not (passes := case.record.regions[region]).is_empty and (dice := case.dice[region]) is not None
        ]
        features, dice = (np.array(values) for values in zip(*pairs, strict=True))
        found[region] = {"cases": len(dice), "by_count": by_count(features, dice)}
    return found


def page(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The page."""
    rows = [["model", "region", "cases", "fitted", "error", "of the median Dice", "coverage", "width"]]
    for name, regions in results.items():
        for region, one in regions.items():
            for count, values in one["by_count"].items():
                numbers = [f"{values[key]:.3f}" for key in ("error", "of_median")]
                rest = [f"{values['coverage']:.0%}", f"{values['width']:.2f}"]
                rows.append([name, region, str(one["cases"]), str(count), *numbers, *rest])
    return f"{_LEAD}\n{markdown_table(rows)}\n"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL_FOLDER", help="calibrated models")
    results = {}
    for given in parser.parse_args().models:
        name, _, folder = given.partition("=")
        cases = known_cases(Path(folder) / MEASUREMENTS_FILE)
        if not cases:
            raise SystemExit(f"error: {folder} is not calibrated: run factorizer-nnunet calibrate first")
        newest = {(case.fold, case.case): case for case in cases.values()}
        results[name] = regions_of(list(newest.values()))
    write_text_atomically(OUT, json.dumps(results, indent=1) + "\n")
    write_text_atomically(OUT.with_suffix(".md"), page(results))
    print(page(results))


if __name__ == "__main__":
    main()
