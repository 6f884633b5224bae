"""What trained models lose without some channels: the Dice of their validation cases with every subset of channels.

    python -m benchmarks.channel_subsets usual=MODEL_FOLDER channeldrop=OTHER_MODEL_FOLDER -f 0 1 2 3 4

A case is predicted by the fold that was validated on it, from nnU-Net's preprocessed data. The folders are models of
one data set, such as one trained as usual and one with ``_channeldrop``; the others are compared with the first, case
by case. A model that was not trained for it gets zeros in the place of an absent channel. Cases that ``dataset.json``
declares incomplete are left out. The Dice of each case is kept in the folder of its fold, as ``factorizer-nnunet
channel-subsets`` does, and the same command continues. NAME.json and NAME.md are written.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from factorizer_nnunet.channel_subsets.measure import fold_work, predict_subsets
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.core.processes import core_count
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.evaluation.subset_scores import CaseScores, mean_of, subset_rows, subsets
from factorizer_nnunet.nnunet.environment import use_own_trainer
from factorizer_nnunet.report.statistics import Estimate, difference

ONE_ABSENT = "mean without one channel"


def measure(
    folder: Path, folds: Sequence[str], device: str, mirror: bool
) -> tuple[dict[str, CaseScores], Sequence[str]]:
    """Predict what is missing; returns the scores by case, and the channels."""
    cases: dict[str, CaseScores] = {}
    channels: Sequence[str] = ()
    for fold in folds:
        work = fold_work(folder, fold, mirror)
        predict_subsets(work, torch.device(device), mirror, progress_bar=True)
        cases |= work.scores.cases
        channels = work.scores.channels
    return cases, channels


def case_means(cases: Mapping[str, CaseScores], chosen: Sequence[str]) -> np.ndarray:
    """The Dice of each case in percent, mean over regions and over these subsets; NaN where no region exists."""
    means = [mean_of(mean_of(case.dice[subset].values()) for subset in chosen) for _, case in sorted(cases.items())]
    return np.array([math.nan if mean is None else 100 * mean for mean in means])


def compare(
    models: Mapping[str, Mapping[str, CaseScores]], channels: Sequence[str], about: Mapping[str, Any]
) -> dict[str, Any]:
    """What the page says; plain JSON values.

    Raises:
        SystemExit: the models were validated on different cases.
    """
    first, *others = models
    if any(models[first].keys() != models[other].keys() for other in others):
        raise SystemExit("error: the models have different validation cases: train them with the same folds")
    groups = {
        "all channels": [name for name, absent in subsets(channels).items() if not absent],
        ONE_ABSENT: [name for name, absent in subsets(channels).items() if len(absent) == 1],
    }
    return {
        **about,
        "cases": len(models[first]),
        "models": {
            label: {
                "subsets": [asdict(row) for row in subset_rows(channels, cases.values())],
                "differences": {
                    group: asdict(difference(case_means(cases, names), case_means(models[first], names), True).estimate)
                    for group, names in groups.items()
                    if names and label != first
                },
            }
            for label, cases in models.items()
        },
    }


def page(results: Mapping[str, Any]) -> str:
    """Markdown."""
    models = results["models"]
    first, *others = models
    rows = [["channels", *models]]
    for place, row in enumerate(models[first]["subsets"]):
        rows.append([row["channels"], *(_points(model["subsets"][place]["mean"]) for model in models.values())])
    changes = [["compared with " + first, *others]]
    groups = list(dict.fromkeys(group for model in models.values() for group in model["differences"]))
    for group in groups:
        changes.append([group, *(_change(Estimate(**models[other]["differences"][group])) for other in others)])
    kinds = "\n".join(f"* {label}: `{folder}`" for label, folder in results["folders"].items())
    return f"""# {results["title"]}

Written by `python -m benchmarks.channel_subsets` (see `--help`). Dice in percent, mean over regions and
{results["cases"]} cases, each predicted by a fold that was not trained on it. Models:

{kinds}

{results["machine"]}. {results["remark"]}

{markdown_table(rows, right=True)}

Differences of single cases in points of Dice, mean and 95 % interval (bootstrap over cases):

{markdown_table(changes, right=True)}
"""


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _change(found: Estimate) -> str:
    return f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})"


def labelled(text: str) -> tuple[str, Path]:
    """LABEL=FOLDER, or a folder, whose name is then its label."""
    label, _, folder = text.rpartition("=")
    return label or Path(folder).name, Path(folder)


def main() -> None:
    """Measure, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=labelled, metavar="[LABEL=]FOLDER", help="models of one data set")
    parser.add_argument("-f", dest="folds", nargs="+", default=["0", "1", "2", "3", "4"], help="folds (default: all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--mirror", action="store_true", help="average over mirrored images, eight times as slow in 3D")
    parser.add_argument("--docs", type=Path, default=Path("docs/measured"), help="where to write")
    parser.add_argument("--name", default="channel_subsets", help="of the files (default: %(default)s)")
    parser.add_argument("--title", default="Subsets of channels", help="of the page (default: %(default)s)")
    parser.add_argument("--remark", default="", help="sentences for the page: which data, how long the training")
    args = parser.parse_args()
    use_own_trainer()
    args.docs.mkdir(parents=True, exist_ok=True)
    measured = {label: measure(folder, args.folds, args.device, args.mirror) for label, folder in args.models}
    about = {
        "title": args.title,
        "folders": {label: folder.name for label, folder in args.models},
        "machine": f"{platform.machine()}, {count_of(core_count(), 'core')}, {args.device}, torch {torch.__version__}",
        "remark": args.remark,
    }
    (channels, *_) = (channels for _, channels in measured.values())
    results = compare({label: cases for label, (cases, _) in measured.items()}, channels, about)
    write_text_atomically(args.docs / f"{args.name}.json", json.dumps(results, indent=1) + "\n")
    write_text_atomically(args.docs / f"{args.name}.md", page(results))
    print(page(results))


if __name__ == "__main__":
    main()
