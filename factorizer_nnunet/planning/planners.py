"""The planners by name: one for each preset, as nnU-Net has them, and one for each published form of the network."""

from __future__ import annotations

from factorizer_nnunet.planning.planner import nnUNetPlannerFactorizer


class nnUNetPlannerFactorizerS(nnUNetPlannerFactorizer):
    """Preset S, for 6 GB; see ``sizes.PRESETS``."""

    preset = "S"


class nnUNetPlannerFactorizerM(nnUNetPlannerFactorizer):
    """Preset M, for 10 GB; see ``sizes.PRESETS``."""

    preset = "M"


class nnUNetPlannerFactorizerL(nnUNetPlannerFactorizer):
    """Preset L, for 24 GB; see ``sizes.PRESETS``."""

    preset = "L"


class nnUNetPlannerFactorizerXL(nnUNetPlannerFactorizer):
    """Preset XL, for 40 GB; see ``sizes.PRESETS``."""

    preset = "XL"


_PLANNERS = {
    planner.preset: planner
    for planner in (
        nnUNetPlannerFactorizer,
        nnUNetPlannerFactorizerS,
        nnUNetPlannerFactorizerM,
        nnUNetPlannerFactorizerL,
        nnUNetPlannerFactorizerXL,
    )
}


def planner_for(preset: str | None = None, network: str | None = None) -> type[nnUNetPlannerFactorizer]:
    """The planner of a preset, or the one whose plans name another form of the network."""
    planner = _PLANNERS[preset]
    if network is None:
        return planner
    return type(f"{planner.__name__}_{network}", (planner,), {"network": network})
