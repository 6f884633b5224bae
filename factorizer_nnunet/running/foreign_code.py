"""Files that nnU-Net's commands would execute code from, checked before a run starts such a command.

Our own trainer and ``factorizer-nnunet predict`` check what they read. nnU-Net's trainers, its choice of the best
model, its ensembling and its postprocessing unpickle files without looking.
"""

from __future__ import annotations

from collections.abc import Iterator

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
    for model in settings.trained_models:
        file = paths.plans(model.plans)
        try:
            plans = read_complete_json(file) or {}
            check_named_code(plans, model.configuration, str(file))
            data = data_folder(paths, model.plans, data_configuration(model.configuration))
            check_pickles(sorted(data.glob("*.pkl")))
            for fold in settings.folds_of(model):
                folder = paths.fold(model, fold)
                check_pickles(sorted(folder.validation.glob("*.pkl")))
                checkpoint = folder.last_checkpoint()
                if checkpoint is not None and not folder.summary.is_file():
                    check_executes_nothing(checkpoint, _FIX)
        except UserError as error:
            yield str(error)
    try:
        best = read_best_configuration(paths)
        if best is not None:
            check_pickles([best.postprocessing] if best.postprocessing.is_file() else [])
    except UserError as error:
        yield str(error)
