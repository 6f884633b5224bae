"""The names by which nnU-Net's commands ask for what is ours or find it."""

from __future__ import annotations

import re

TRAINER = "nnUNetTrainerFactorizer"  # variants have their budget after it, see ``training.budget``
PLANS = "nnUNetFactorizerPlans"  # of the planner as it is; others have names by ``own_plans``
SPLITS_FILE = "splits_final.json"  # folds; beside raw data, nnU-Net's planner copies them to nnUNet_preprocessed

_TEMPLATE_PLANS = "nnUNetFactorizerTemplatePlans"
_OWN_PLANS = re.compile(r"nnUNetFactorizer(S|M|L|XL)?Plans(?:_(\w+))?")


def own_plans(preset: str | None = None, network: str | None = None) -> str:
    """The name of our plans: nnUNetFactorizerMPlans for a preset, nnUNetFactorizerPlans_swin for a form of the network.

    None stands for the planner's own choice.
    """
    name = PLANS if preset is None else f"nnUNetFactorizer{preset}Plans"
    return name if network is None else f"{name}_{network}"


def template_plans(template: str) -> str:
    """The name of plans that a template sets; a template may be named like a form of the network."""
    return f"{_TEMPLATE_PLANS}_{template}"


def template_of(plans: str) -> str | None:
    """The template by the name of plans, the inverse of ``template_plans``; None for other names."""
    return plans.removeprefix(f"{_TEMPLATE_PLANS}_") if plans.startswith(f"{_TEMPLATE_PLANS}_") else None


def what_is_planned(plans: str) -> tuple[str | None, str | None] | None:
    """Preset and form of the network by the name of plans, the inverse of ``own_plans``; None for other names."""
    match = _OWN_PLANS.fullmatch(plans)
    return None if match is None else (match.group(1), match.group(2))
