"""nnU-Net's cascade: a model at full resolution that refines the segmentations of one at low resolution."""

from __future__ import annotations

from collections.abc import Iterable

from factorizer_nnunet.nnunet.model_name import ModelName

CASCADE, LOWRES, FULLRES = "3d_cascade_fullres", "3d_lowres", "3d_fullres"


def previous_stage(model: ModelName) -> ModelName | None:
    """The low-resolution model whose segmentations a cascade refines; None for other models."""
    return ModelName(model.trainer, model.plans, LOWRES) if model.configuration == CASCADE else None


def data_configuration(configuration: str) -> str:
    """The configuration whose preprocessed data a configuration uses: for a cascade, the full resolution."""
    return FULLRES if configuration == CASCADE else configuration


def with_previous_stages(models: Iterable[ModelName]) -> tuple[ModelName, ...]:
    """These models, each after the one that it refines; none twice."""
    pairs = [(previous_stage(model), model) for model in models]
    return tuple(dict.fromkeys(model for pair in pairs for model in pair if model is not None))
