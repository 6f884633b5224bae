"""What nnU-Net's find_best_configuration decided, as it wrote it down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.settings import RunModel


@dataclass(frozen=True)
class BestConfiguration:
    """The best model, or the pair of models whose mean probabilities are best.

    Attributes:
        considered: the models it was chosen from.
        models: one, or two for an ensemble.
        dice: mean foreground Dice over the cross-validation, by name of model or ensemble, before postprocessing.
        dice_after: of the chosen, after postprocessing.
    """

    considered: tuple[RunModel, ...]
    folds: tuple[int, ...]
    models: tuple[RunModel, ...]
    dice: Mapping[str, float]
    dice_before: float
    dice_after: float
    postprocessing: Path
    plans_file: Path

    @property
    def stages(self) -> tuple[RunModel, ...]:
        """All models that must segment the test images, each after the one that it refines."""
        pairs = [(model.previous, model) for model in self.models]
        return tuple(dict.fromkeys(model for pair in pairs for model in pair if model is not None))

    @property
    def name(self) -> str:
        """The name of the chosen in ``dice``."""
        return next(name for name, dice in self.dice.items() if dice == self.dice_before)


def read_best_configuration(paths: RunPaths) -> BestConfiguration | None:
    """The choice; None if there is none yet, or a half-written one.

    Raises:
        UserError: the file is not nnU-Net's.
    """
    content = read_complete_json(paths.choice)
    if content is None:
        return None
    try:
        best = content["best_model_or_ensemble"]
        return BestConfiguration(
            considered=tuple(
                RunModel(entry["trainer"], entry["plans"], entry["configuration"])
                for entry in content["considered_models"]
            ),
            folds=tuple(content["folds"]),
            models=tuple(
                RunModel(entry["trainer"], entry["plans_identifier"], entry["configuration"])
                for entry in best["selected_model_or_models"]
            ),
            dice=content["all_results"],
            dice_before=best["result_on_crossval_pre_pp"],
            dice_after=best["result_on_crossval_post_pp"],
            postprocessing=Path(best["postprocessing_file"]),
            plans_file=Path(best["some_plans_file"]),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{paths.choice} is not as nnU-Net writes it ({error!r}). Remove it") from error
