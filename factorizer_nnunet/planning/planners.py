"""The planners by name: one for each size, as in nnU-Net, and one for each published variant of the network."""

from __future__ import annotations

from factorizer_nnunet.planning.planner import nnUNetPlannerFactorizer


class nnUNetPlannerFactorizerS(nnUNetPlannerFactorizer):
    """Size S, for 6 GB; see ``sizes.SIZES``."""

    size_name = "S"


class nnUNetPlannerFactorizerM(nnUNetPlannerFactorizer):
    """Size M, for 10 GB; see ``sizes.SIZES``."""

    size_name = "M"


class nnUNetPlannerFactorizerL(nnUNetPlannerFactorizer):
    """Size L, for 24 GB; see ``sizes.SIZES``."""

    size_name = "L"


class nnUNetPlannerFactorizerXL(nnUNetPlannerFactorizer):
    """Size XL, for 40 GB; see ``sizes.SIZES``."""

    size_name = "XL"


_PLANNERS = {
    planner.size_name: planner
    for planner in (
        nnUNetPlannerFactorizer,
        nnUNetPlannerFactorizerS,
        nnUNetPlannerFactorizerM,
        nnUNetPlannerFactorizerL,
        nnUNetPlannerFactorizerXL,
    )
}


def planner_for(size: str | None = None, variant: str | None = None) -> type[nnUNetPlannerFactorizer]:
    """The planner of a size, or a subclass of it for a variant of the network, named after the variant."""
    planner = _PLANNERS[size]
    if variant is None:
        return planner
    return type(f"{planner.__name__}_{variant}", (planner,), {"variant": variant})
