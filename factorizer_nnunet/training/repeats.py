"""Any trainer under another name, to train a model again; see ``nnunet.names.repeat_trainer``."""

from __future__ import annotations

import functools

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.names import parse_repeat
from factorizer_nnunet.nnunet.trusted_classes import trainer_class


@functools.cache
def repeated_trainer(name: str) -> type[nnUNetTrainer]:
    """The trainer of which the name is a repeat, as a class of this name, so that nnU-Net keeps its results apart.

    Raises:
        AttributeError: nnU-Net does not find that trainer.
    """
    try:
        trainer = trainer_class(parse_repeat(name)[0], name)
    except UserError as error:
        raise AttributeError(name) from error
    return type(name, (trainer,), {"__module__": __name__})
