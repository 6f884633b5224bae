"""The step of the sliding window that a model folder asks for.

nnU-Net's plans and checkpoints have no place for it, so a folder that ``tune-inference`` derived keeps it in a file of
its own, which ``factorizer-nnunet predict`` reads; the stock commands take it as ``-step_size``.
"""

from __future__ import annotations

from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object

INFERENCE_FILE = "factorizer_inference.json"  # in a model folder
DEFAULT_STEP = 0.5  # nnU-Net's


def is_step(value: object) -> bool:
    """Whether a value can be a step, as a fraction of the patch."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


def step_of(model: Path) -> float:
    """The step for a model folder; nnU-Net's unless the folder asks for another.

    Raises:
        UserError: its file cannot be used.
    """
    file = model / INFERENCE_FILE
    if not file.exists():
        return DEFAULT_STEP
    mend = "Correct it, or remove it to predict with nnU-Net's step"
    step = load_json_object(file, mend).get("tile_step_size")
    if not is_step(step):
        raise UserError(f"{file}: tile_step_size {step!r} must be above 0 and at most 1. {mend}")
    return float(step)
