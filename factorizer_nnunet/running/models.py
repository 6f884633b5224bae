"""What nnU-Net calls a model: a trainer, plans, and one of their configurations."""

from __future__ import annotations

from dataclasses import dataclass

CASCADE, LOWRES, FULLRES = "3d_cascade_fullres", "3d_lowres", "3d_fullres"


@dataclass(frozen=True)
class RunModel:
    """A model, by the names that nnU-Net's commands take."""

    trainer: str
    plans: str
    configuration: str

    @property
    def name(self) -> str:
        """The name of its folder in nnUNet_results."""
        return f"{self.trainer}__{self.plans}__{self.configuration}"

    @property
    def previous(self) -> RunModel | None:
        """For a cascade, the low-resolution model whose segmentations it refines; None for other models."""
        return RunModel(self.trainer, self.plans, LOWRES) if self.configuration == CASCADE else None


def with_previous(models: tuple[RunModel, ...]) -> tuple[RunModel, ...]:
    """These models and those that they refine, which come first; none twice."""
    pairs = [(model.previous, model) for model in models]
    return tuple(dict.fromkeys(model for pair in pairs for model in pair if model is not None))
