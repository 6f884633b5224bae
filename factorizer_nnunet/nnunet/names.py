"""The names under which nnU-Net finds our trainer, plans and folds."""

from __future__ import annotations

import re

TRAINER = "nnUNetTrainerFactorizer"  # trainers with another number of epochs append it, see ``training.budget``
PLANS = "nnUNetFactorizerPlans"  # of the default planner; see ``plans_name`` for the others
LABEL_FOLDER = "gt_segmentations"  # nnU-Net's copies of the labels, in a dataset's folder in nnUNet_preprocessed
SPLITS_FILE = "splits_final.json"  # the folds; nnU-Net's planner copies it from the raw to the preprocessed data

_TEMPLATE_PLANS = "nnUNetFactorizerTemplatePlans"
_FINETUNED_PLANS = "nnUNetFactorizerFinetunedPlans"
CHANNEL_DROP = "_channeldrop"  # in the names of trainers that leave out channels
# What follows TRAINER, see ``training.budget``; the end is that of a trainer that trains a model again.
TRAINER_SUFFIX = (
    r"(?P<length>(?:_(?P<epochs>\d+)epochs?|_(?P<hours>\d+(?:\.\d+)?)h|_(?P<minutes>\d+)m)?(?:_(?P<iters>\d+)iters?)?)"
    r"(?:_lr(?P<lr>\d+(?:\.\d+)?(?:e-?\d+)?))?(?:_warmup(?P<warmup>\d+))?"
    rf"(?P<freeze>(?:_freeze(?:stem|encoder|decoder))*)(?P<drop>{CHANNEL_DROP})?"
    r"(?P<repeat>_repeat(?:[2-9]|[1-9]\d+))?"
)
_REPEAT = re.compile(r"(\w+)_repeat([2-9]|[1-9]\d+)", re.ASCII)
_PLANS_NAME = re.compile(r"nnUNetFactorizer(S|M|L|XL)?Plans(?:_(\w+))?")


def plans_name(size: str | None = None, variant: str | None = None) -> str:
    """The name of our plans: nnUNetFactorizerMPlans for a size, nnUNetFactorizerPlans_swin for a network variant.

    None stands for the planner's own choice.
    """
    name = PLANS if size is None else f"nnUNetFactorizer{size}Plans"
    return name if variant is None else f"{name}_{variant}"


def parse_plans_name(plans: str) -> tuple[str | None, str | None] | None:
    """Size and variant from the name of plans, the inverse of ``plans_name``; None for other names."""
    match = _PLANS_NAME.fullmatch(plans)
    return None if match is None else (match.group(1), match.group(2))


def template_plans_name(template: str) -> str:
    """The name of plans made from a template, which may be named like a variant of the network."""
    return f"{_TEMPLATE_PLANS}_{template}"


def template_of(plans: str) -> str | None:
    """The template from the name of plans, the inverse of ``template_plans_name``; None for other names."""
    return plans.removeprefix(f"{_TEMPLATE_PLANS}_") if plans.startswith(f"{_TEMPLATE_PLANS}_") else None


def finetuned_plans_name(dataset: str) -> str:
    """The name of plans for fine-tuning a model of a data set, with its ID: nnUNetFactorizerFinetunedPlans_from004."""
    number = re.match(r"Dataset(\d+)_", dataset)
    return f"{_FINETUNED_PLANS}_from{number[1]}" if number else _FINETUNED_PLANS


def repeat_trainer(trainer: str, number: int) -> str:
    """The trainer of another training of the same model: ``…_repeat2`` of the second one, the trainer of the first.

    nnU-Net's trainings begin with random weights, so each is a sample; the name keeps their results apart.
    """
    return trainer if number == 1 else f"{trainer}_repeat{number}"


def parse_repeat(trainer: str) -> tuple[str, int]:
    """The trainer and the number of the training, the inverse of ``repeat_trainer``."""
    match = _REPEAT.fullmatch(trainer)
    return (trainer, 1) if match is None else (match[1], int(match[2]))


def id_in_name(name: str) -> int:
    """The number in a data set's name, ``DatasetXXX_Name``."""
    return int(name.removeprefix("Dataset").split("_")[0])
