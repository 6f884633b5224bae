"""Measure what a model loses without some channels.

Predict the validation cases of trained folds with every subset of channels: 15 for four. Each case is predicted by the
fold that was not trained on it, from the preprocessed data, with a model that was trained with the suffix _channeldrop.
The Dice of each region and subset is printed, and kept in the folder of each fold, from where the report shows it. The
same command continues after an interruption.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from factorizer_nnunet.commands.options import (
    add_device_options,
    add_model_names,
    add_shared,
    model_folder,
    request_of,
)
from factorizer_nnunet.core.interrupts import terminable

if TYPE_CHECKING:
    from factorizer_nnunet.evaluation.subset_scores import SubsetScores

EPILOG = """\
example:
  factorizer-nnunet channel-subsets -d 137 -c 3d_fullres -tr nnUNetTrainerFactorizer_channeldrop
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model_names(parser)
    add_shared(parser, "-f", nargs="+", help="folds (default: all that are trained)")
    parser.add_argument(
        "--mirroring", action="store_true", help="average over mirrored images, eight times as slow in 3D"
    )
    add_device_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, then print the table."""
    from factorizer_nnunet.channel_subsets.measure import SubsetRequest, measure_subsets
    from factorizer_nnunet.nnunet.environment import use_own_trainer

    use_own_trainer()
    with terminable():
        scores = measure_subsets(request_of(SubsetRequest, args, model=model_folder(args)))
    print(_table(scores))
    return 0


def _table(scores: list[SubsetScores]) -> str:
    from factorizer_nnunet.core.markdown import markdown_table
    from factorizer_nnunet.evaluation.subset_scores import cells, heads, subset_rows

    cases = [case for fold in scores for case in fold.cases.values()]
    if not cases:
        return "no complete cases: each lacks some channels"
    rows = subset_rows(scores[0].channels, cases)
    return (
        f"\nDice in percent, mean over {len(cases)} cases; drop: of the mean, compared with all channels\n\n"
        f"{markdown_table([heads(rows), *map(cells, rows)], right=True)}"
    )
