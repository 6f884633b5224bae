"""A fine-tuning in words: what comes from where, and the commands that follow."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.finetuning.finetune import train_command
from factorizer_nnunet.finetuning.matching import Matching
from factorizer_nnunet.finetuning.preparation import Preparation
from factorizer_nnunet.nnunet.names import TRAINER


def describe(preparation: Preparation) -> Iterator[str]:
    """Tables of channels, classes and plans, and what the user should know, as paragraphs."""
    yield f"{preparation.raw.name} starts from {preparation.source.title}"
    for what, matching in (("channel", preparation.matched.channels), ("class", preparation.matched.outputs)):
        yield markdown_table([[what, "starts from"], *map(list, matching.rows())])
        if matching.unused:
            yield f"Not used of the model: {', '.join(matching.unused)}"
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
    frozen = {part for part in ("stem", "encoder") if f"_freeze{part}" in trainer}
    if frozen and not channels.is_identity:
        yield (
            f"WARNING: the first convolution is frozen ({' and '.join(sorted(frozen))}), although the channels are not "
            "those of the model"
        )
    yield from _all_new(preparation.matched.channels, "channels", preparation)


def _all_new(matching: Matching, what: str, preparation: Preparation) -> Iterator[str]:
    if all(source is None for source in matching.sources):
        example = f"--map {shlex.quote(f'{matching.old[0]}={matching.new[0]}')}"
        yield (
            f"WARNING: none of the {what} of {preparation.raw.name} has a name of the model. If one shows the same, "
            f"say so, such as {example}"
        )
