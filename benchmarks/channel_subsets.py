"""What trained models lose without some channels: the Dice of their validation cases with every subset of channels.

    python -m benchmarks.channel_subsets MODEL_FOLDER [MODEL_FOLDER ...] -f 0 1 2 3 4 --docs docs/measured

A case is predicted by the fold that was validated on it, from nnU-Net's preprocessed data. The folders are models of
one data set, such as one trained as usual and one with ``_channeldrop``. A model that was not trained for it gets zeros
in the place of an absent channel. Cases that ``dataset.json`` declares incomplete are left out. The Dice of each case
is kept in the folder of its fold, as ``factorizer-nnunet channel-subsets`` does, and the same command continues;
``channel_subsets.json`` and ``channel_subsets.md`` have the means.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from factorizer_nnunet.channel_subsets.measure import fold_work, predict_subsets
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.evaluation.subset_scores import CaseScores, SubsetRow, subset_rows
from factorizer_nnunet.nnunet.environment import use_own_trainer


def measure(folder: Path, folds: Sequence[str], device: str, mirror: bool) -> tuple[list[SubsetRow], int]:
    """Predict what is missing; returns the means of all subsets and the number of cases."""
    cases: list[CaseScores] = []
    channels: tuple[str, ...] = ()
    for fold in folds:
        work = fold_work(folder, fold, mirror)
        predict_subsets(work, torch.device(device), mirror, progress_bar=True)
        cases += work.scores.cases.values()
        channels = work.scores.channels
    return subset_rows(channels, cases), len(cases)


def page(results: Mapping[str, Sequence[SubsetRow]], cases: int) -> str:
    """The table of all subsets, and the mean over those without a single channel."""
    first = next(iter(results.values()))
    means = {name: [math.nan if row.mean is None else row.mean for row in rows] for name, rows in results.items()}
    rows = [["channels", *results]]
    rows += [[row.channels, *(f"{values[place]:.1f}" for values in means.values())] for place, row in enumerate(first)]
    channels = first[0].channels.count(" + ") + 1
    lacking_one = [place for place, row in enumerate(first) if row.channels.count(" + ") == channels - 2]
    if lacking_one:
        without = [statistics.fmean(values[place] for place in lacking_one) for values in means.values()]
        rows.append(["mean without one channel", *(f"{mean:.1f}" for mean in without)])
    lead = f"Dice in percent, mean over regions and {cases} cases, each predicted by a fold that was not trained on it."
    return f"# Subsets of channels\n\n{lead}\n\n{markdown_table(rows, right=True)}\n"


def main() -> None:
    """Measure, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="model folders of one data set")
    parser.add_argument("-f", dest="folds", nargs="+", default=["0", "1", "2", "3", "4"], help="folds (default: all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--mirror", action="store_true", help="average over mirrored images, eight times as slow in 3D")
    parser.add_argument("--docs", type=Path, default=Path("docs/measured"), help="where to write")
    args = parser.parse_args()
    use_own_trainer()
    args.docs.mkdir(parents=True, exist_ok=True)
    measured = {folder.name: measure(folder, args.folds, args.device, args.mirror) for folder in args.models}
    numbers = {
        name: {"cases": cases, "subsets": [asdict(row) for row in rows]} for name, (rows, cases) in measured.items()
    }
    write_text_atomically(args.docs / "channel_subsets.json", json.dumps(numbers, indent=1) + "\n")
    text = page({name: rows for name, (rows, _) in measured.items()}, min(cases for _, cases in measured.values()))
    write_text_atomically(args.docs / "channel_subsets.md", text)
    print(text)


if __name__ == "__main__":
    main()
