"""What a metric is worth when a mask is empty: one written policy, per metric and per situation.

Without a scheme nothing is invented. What follows from the definition is kept: a Dice of 0 where one mask is empty.
What does not is undefined: a Dice of two empty masks, as nnU-Net has it, or a distance to a surface that is not there.
Undefined scores leave a mean, and every summary says over how many of how many cases it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

from factorizer_nnunet.core.errors import UserError

COMPUTED = "computed"  # as the metric's definition gives it
DIAGONAL = "diagonal"  # of the image, from corner to corner of the grid, in mm
DIAGONAL_VOXELS = "diagonal-voxels"  # the same with voxels of 1 mm, as some challenges take it
UNDEFINED = "undefined"
Value = float | str  # a number or one of these words


@dataclass(frozen=True)
class EmptyValues:
    """The score of a case whose reference, prediction or both have no voxel of the region."""

    both: Value = COMPUTED
    reference: Value = COMPUTED  # empty, the prediction is not
    prediction: Value = COMPUTED  # empty, the reference is not


EmptyPolicy = Mapping[str, EmptyValues]  # by metric; surface Dice under "nsd", whatever its tolerance

# Lesion-wise means over no lesion at all count as "both": also where only lesions too small to count are there.
DEFAULT_POLICY: EmptyPolicy = {
    "dice": EmptyValues(both=UNDEFINED),
    "iou": EmptyValues(both=UNDEFINED),
    "sensitivity": EmptyValues(both=UNDEFINED, reference=UNDEFINED),
    "precision": EmptyValues(both=UNDEFINED, prediction=UNDEFINED),
    "hd95": EmptyValues(UNDEFINED, UNDEFINED, UNDEFINED),
    "assd": EmptyValues(UNDEFINED, UNDEFINED, UNDEFINED),
    "nsd": EmptyValues(both=UNDEFINED, reference=0.0, prediction=0.0),
    "lesion_f1": EmptyValues(both=UNDEFINED),
    "lesion_dice": EmptyValues(both=UNDEFINED),
    "lesion_hd95": EmptyValues(both=UNDEFINED),
}
LESION_WISE = ("lesion_f1", "lesion_dice", "lesion_hd95")


@dataclass(frozen=True)
class Diagonals:
    """How long an image is from corner to corner."""

    mm: float
    voxels: float

    def number(self, value: Value) -> float:
        """The number that `value` stands for in this image."""
        words = {DIAGONAL: self.mm, DIAGONAL_VOXELS: self.voxels, UNDEFINED: math.nan}
        return words[value] if isinstance(value, str) else float(value)


def changed(policy: EmptyPolicy, changes: Iterable[str]) -> EmptyPolicy:
    """The policy with changes such as "dice:both=1" or "hd95:prediction=diagonal".

    Raises:
        UserError: one of them has another form, or names an unknown metric, situation or value.
    """
    result = dict(policy)
    situations = [field.name for field in fields(EmptyValues)]
    for change in changes:
        name, _, value = change.partition("=")
        metric, _, situation = name.partition(":")
        allowed = situations[:1] if metric in LESION_WISE else situations
        if metric not in policy or situation not in allowed or not value:
            raise UserError(
                f"{change!r} does not say what an empty mask is worth: write METRIC:SITUATION=VALUE, such as "
                f"dice:both=1, with a metric of {', '.join(policy)} and a situation of {', '.join(situations)} "
                "(lesion-wise: both)"
            )
        result[metric] = replace(result[metric], **{situation: _value(change, value)})
    return result


def _value(change: str, text: str) -> Value:
    if text in (UNDEFINED, DIAGONAL, DIAGONAL_VOXELS):
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{change!r}: give a number, {UNDEFINED}, {DIAGONAL} (mm) or {DIAGONAL_VOXELS}, not {text!r}")
    return number
