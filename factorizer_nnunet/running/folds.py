"""nnU-Net's five folds, made before folds train side by side: each training would make them for itself otherwise."""

from __future__ import annotations

import json

from factorizer_nnunet.files import write_whole
from factorizer_nnunet.running.dataset import training_labels
from factorizer_nnunet.running.paths import RunPaths

NUMBER, SEED = 5, 12345  # as in nnU-Net's trainer, so that the folds are those of a stock training


def write_folds(paths: RunPaths) -> None:
    """Write ``splits_final.json`` as nnU-Net's trainer would."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    folds = generate_crossval_split(sorted(training_labels(paths)), seed=SEED, n_splits=NUMBER)
    plain = [{part: [str(case) for case in cases] for part, cases in fold.items()} for fold in folds]
    write_whole(paths.splits, json.dumps(plain, indent=4) + "\n")
