"""Names of the folders in ``nnUNet_results/DATASET``: models, ensembles and collected cross-validations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from factorizer_nnunet.core.path_names import component_problem, path_component
from factorizer_nnunet.nnunet.names import parse_repeat, repeat_trainer

_SEPARATOR = "__"  # between trainer, plans and configuration
_ENSEMBLE_SEPARATOR = "___"  # between the members of an ensemble
_ENSEMBLE = "ensemble"
_TRAINER = "nnUNetTrainer"  # nnU-Net's; names of others begin with it
_CROSS_VALIDATION = "crossval_results_folds_"


@dataclass(frozen=True)
class ModelName:
    """What nnU-Net calls a model: a trainer, the name of plans, and a configuration in these plans."""

    trainer: str
    plans: str
    configuration: str

    def __post_init__(self) -> None:
        """Raises UserError if a part, which may come from a file, cannot be part of a folder's name."""
        for part in ("trainer", "plans", "configuration"):
            path_component(getattr(self, part), f"{part} of a model")

    @classmethod
    def parse(cls, folder: str) -> ModelName | None:
        """The inverse of :attr:`folder`; None for other names, such as those of ensembles."""
        parts = folder.split(_SEPARATOR)
        is_model = len(parts) == 3 and not any(map(component_problem, parts))
        return cls(*parts) if is_model else None

    @property
    def folder(self) -> str:
        """The name of its folder, ``TRAINER__PLANS__CONFIGURATION``."""
        return _SEPARATOR.join((self.trainer, self.plans, self.configuration))


def repeat_of(model: ModelName, number: int) -> ModelName:
    """The model of another training, see ``names.repeat_trainer``; the first has number 1."""
    return replace(model, trainer=repeat_trainer(model.trainer, number))


def first_of_repeats(model: ModelName) -> tuple[ModelName, int]:
    """The inverse of ``repeat_of``."""
    trainer, number = parse_repeat(model.trainer)
    return replace(model, trainer=trainer), number


def short_trainer(name: str) -> str:
    """A trainer's name as people read it, such as "Factorizer" or "nnU-Net 5epochs"."""
    short = name.removeprefix(_TRAINER)
    if not short or short.startswith("_"):
        short = f"nnU-Net{short}"
    return short.replace("_", " ").strip()


def is_plans_name(name: str) -> bool:
    """Whether plans of this name can be part of a model's folder name: letters, digits, single underscores inside."""
    return re.fullmatch(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*", name) is not None


def parse_ensemble(folder: str) -> tuple[str, ...] | None:
    """The folder names of the two members of ``ensemble___MODEL___MODEL___FOLDS``; None for other names."""
    prefix, *members = folder.split(_ENSEMBLE_SEPARATOR)
    return tuple(members[:2]) if prefix == _ENSEMBLE and len(members) >= 2 else None


def cross_validation_folder(folds: Iterable[int]) -> str:
    """The folder in which nnU-Net collects the validation predictions of several folds of a model."""
    return _CROSS_VALIDATION + "_".join(map(str, folds))


def is_cross_validation(folder: str) -> bool:
    """Whether a folder of this name has predictions of training cases, of a model or an ensemble."""
    return folder.startswith((_CROSS_VALIDATION, _ENSEMBLE + _ENSEMBLE_SEPARATOR))
