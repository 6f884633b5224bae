"""The result of nnU-Net's find_best_configuration, as it wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.nnunet.integrity import is_complete
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.provenance import Derived
from factorizer_nnunet.running.cascade import with_previous_stages
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.settings import RunSettings

BEST = "find_best_configuration"  # the step's name


@dataclass(frozen=True)
class BestConfiguration:
    """The best model, or the pair of models whose mean probabilities are best.

    Attributes:
        considered: the models among which it was chosen.
        models: one, or two for an ensemble.
        dice: mean foreground Dice in cross-validation, by name of model or ensemble, before postprocessing.
        dice_before: that of the best, before postprocessing.
        dice_after: that of the best, after postprocessing.
    """

    considered: tuple[ModelName, ...]
    folds: tuple[int, ...]
    models: tuple[ModelName, ...]
    dice: Mapping[str, float]
    dice_before: float
    dice_after: float
    postprocessing: Path
    plans_file: Path

    @property
    def stages(self) -> tuple[ModelName, ...]:
        """All models that must segment the test images, each after the one that it refines."""
        return with_previous_stages(self.models)

    @property
    def is_ensemble(self) -> bool:
        return len(self.models) > 1

    @property
    def name(self) -> str:
        """The name of the best in ``dice``."""
        return next(name for name, dice in self.dice.items() if dice == self.dice_before)


def read_best_configuration(paths: RunPaths) -> BestConfiguration | None:
    """Read the result; None if it is missing or half-written.

    Raises:
        UserError: the file is not nnU-Net's.
    """
    file = _file(paths)
    content = read_complete_json(file)
    if content is None:
        return None
    try:
        best = content["best_model_or_ensemble"]
        found = BestConfiguration(
            considered=_models(content["considered_models"], "plans"),
            folds=tuple(content["folds"]),
            models=_models(best["selected_model_or_models"], "plans_identifier"),
            dice=content["all_results"],
            dice_before=best["result_on_crossval_pre_pp"],
            dice_after=best["result_on_crossval_post_pp"],
            postprocessing=Path(best["postprocessing_file"]),
            plans_file=Path(best["some_plans_file"]),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} is not as nnU-Net writes it ({error!r}). Move it away") from error
    if not found.models or not set(found.models) <= set(found.considered):
        raise UserError(f"{file} has chosen a model that it did not consider. Move it away")
    return found


def _models(entries: Sequence[Mapping[str, str]], plans: str) -> tuple[ModelName, ...]:
    return tuple(ModelName(entry["trainer"], entry[plans], entry["configuration"]) for entry in entries)


def current_best_configuration(settings: RunSettings) -> BestConfiguration | None:
    """Read the result if it is about the models and folds of this run and made from their scores; else None."""
    paths = settings.paths
    best = read_best_configuration(paths)
    if (
        best is not None
        and set(best.considered) == set(settings.models)
        and best.folds == settings.folds
        and best.postprocessing.is_file()
        and best_configuration(settings).stale_reason() is None
    ):
        return best
    return None


def best_configuration(settings: RunSettings) -> Derived:
    """The choice, made from the scores of all folds of all models."""
    paths = settings.paths
    folds = [(model, fold) for model in settings.models for fold in settings.folds]
    scores = {f"{model.folder} fold {fold}": paths.fold(model, fold).summary for model, fold in folds}
    return Derived(paths.record(BEST), scores, {}, (_file(paths),))


def keep_best_configuration(paths: RunPaths) -> None:
    """Copy the result of the last find_best_configuration to the run's folder, since that of another run replaces it.

    Raises:
        OSError: it cannot be read or written.
    """
    write_text_atomically(paths.best_configuration, paths.last_best_configuration.read_text(encoding="utf-8"))


def keep_that_of_unnamed_run(paths: RunPaths) -> list[str]:
    """Before another run replaces nnU-Net's file: copy it for the run without a name, which may rely on it."""
    unnamed = paths.unnamed
    relies = unnamed.request.is_file() and not unnamed.best_configuration.exists()
    if paths.name is not None and relies and is_complete(unnamed.last_best_configuration):
        keep_best_configuration(unnamed)
    return []


def _file(paths: RunPaths) -> Path:
    """The run's own copy; without a name also nnU-Net's file, which its command or an earlier version may have left."""
    relies = paths.name is None and not paths.best_configuration.exists()
    return paths.last_best_configuration if relies else paths.best_configuration
