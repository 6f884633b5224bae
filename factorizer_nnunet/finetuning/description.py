"""A fine-tuning in words: what comes from where, and the commands that follow."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.finetuning.finetune import train_command
from factorizer_nnunet.finetuning.preparation import Preparation
from factorizer_nnunet.nnunet.absent_channels import advice_for, drops_channels
from factorizer_nnunet.nnunet.names import TRAINER


def describe(preparation: Preparation) -> Iterator[str]:
    """Tables of channels, classes and plans, and what the user should know, as paragraphs."""
    yield f"{preparation.raw.name} starts from {preparation.source.title}"
    for what, matching in (("channel", preparation.matched.channels), ("class", preparation.matched.outputs)):
        yield markdown_table([[what, "starts from"], *map(list, matching.rows())])
        if matching.unused:
            yield f"Not used of the model: {', '.join(matching.unused)}"
    if preparation.plans_file.is_file():  # perhaps edited since
        yield f"The plans exist and are kept as they are: {preparation.plans_file}"
    else:
        yield markdown_table([["plans", preparation.name.plans], *map(list, preparation.adoption.rows)])
    yield from _notes(preparation)


def commands(preparation: Preparation) -> Iterator[str]:
    """The commands that train the folds, and then predict."""
    for fold in preparation.request.folds:
        yield shlex.join(train_command(preparation, fold))
    name = preparation.name
    model = ["-d", str(preparation.raw.id), "-c", name.configuration, "-tr", name.trainer, "-p", name.plans]
    folds = ["-f", *preparation.request.folds]
    yield shlex.join(["factorizer-nnunet", "predict", *model, *folds, "-i", "IMAGES", "-o", "OUT"])


def _notes(preparation: Preparation) -> Iterator[str]:
    trainer, channels = preparation.name.trainer, preparation.matched.channels
    yield f"Trainer: {trainer}"
    if not trainer.startswith(TRAINER):
        yield (
            f"{trainer} trains at its own learning rate: only {TRAINER} has a lower one, a warm-up and frozen parts in "
            "its name"
        )
    if preparation.source.checkpoint.channel_drop and len(channels.new) > 1 and not drops_channels(trainer):
        yield (
            "WARNING: the model predicts cases without some channels, but what is trained now will refuse them. "
            f"{advice_for(trainer)}"
        )
    frozen = {part for part in ("stem", "encoder") if f"_freeze{part}" in trainer}
    if frozen and not channels.is_identity:
        yield (
            f"WARNING: the first convolution is frozen ({' and '.join(sorted(frozen))}), although the channels are not "
            "those of the model"
        )
    if all(source is None for source in channels.sources):
        example = f"--map {shlex.quote(f'{channels.old[0]}={channels.new[0]}')}"
        yield (
            f"WARNING: none of the channels of {preparation.raw.name} has a name of the model. If one shows the same, "
            f"say so, such as {example}"
        )
