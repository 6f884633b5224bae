"""Files that nnU-Net's commands would execute code from, checked before a run starts such a command.

Our own trainer and ``factorizer-nnunet predict`` check what they read. nnU-Net's trainers, its choice of the best
model, its ensembling and its postprocessing unpickle files without looking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.nnunet.checkpoint import check_executes_nothing
from factorizer_nnunet.nnunet.safe_pickle import check_pickles
from factorizer_nnunet.nnunet.trusted_classes import check_named_code
from factorizer_nnunet.running.best_configuration import read_best_configuration
from factorizer_nnunet.running.cascade import data_configuration
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.sources import data_folder

_FIX = "Move it away, then run the same command again"


def foreign_code_problems(settings: RunSettings) -> Iterator[str]:
    """One line for each of plans, preprocessed data, checkpoints and results that would execute foreign code."""
    paths = settings.paths
    folders: dict[Path, None] = {}  # with pickles that nnU-Net reads; models share preprocessed data
    for model in settings.trained_models:
        file = paths.plans(model.plans)
        try:
            check_named_code(read_complete_json(file) or {}, model.configuration, str(file))
            folders[data_folder(paths, model.plans, data_configuration(model.configuration))] = None
            for fold in settings.folds_of(model):
                folder = paths.fold(model, fold)
                folders[folder.validation] = None
                checkpoint = folder.last_checkpoint()
                if checkpoint is not None and not folder.summary.is_file():
                    check_executes_nothing(checkpoint, _FIX)
        except UserError as error:
            yield str(error)
    for pickles in (sorted(folder.glob("*.pkl")) for folder in folders):
        yield from _pickle_problems(pickles)
    try:
        best = read_best_configuration(paths)
    except UserError as error:
        yield str(error)
    else:
        yield from _pickle_problems([best.postprocessing] if best is not None and best.postprocessing.is_file() else [])


def _pickle_problems(files: Sequence[Path]) -> Iterator[str]:
    try:
        check_pickles(files)
    except UserError as error:
        yield str(error)
