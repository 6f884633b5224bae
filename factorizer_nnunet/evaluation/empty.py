"""The value of each metric when a mask is empty: one explicit policy, by metric and by which mask is empty.

Without a scheme, values that follow from the definition are kept, such as a Dice of 0 where one mask is empty. All
others are undefined: the Dice of two empty masks, as in nnU-Net, or the distance to a surface that does not exist.
Undefined scores are left out of means, and every summary states the number of cases in the mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

from factorizer_nnunet.core.errors import UserError

COMPUTED = "computed"  # by the definition of the metric
DIAGONAL = "diagonal"  # of the image, in mm
DIAGONAL_VOXELS = "diagonal-voxels"  # of the image, in voxels, which some challenges use as mm
UNDEFINED = "undefined"
Value = float | str  # a number or one of these words


@dataclass(frozen=True)
class EmptyValues:
    """The score of a case in which the reference, the prediction or both have no voxel of the region."""

    both: Value = COMPUTED
    reference: Value = COMPUTED  # only the reference is empty
    prediction: Value = COMPUTED  # only the prediction is empty


EmptyPolicy = Mapping[str, EmptyValues]  # by metric; "nsd" for surface Dice at any tolerance

# Lesion-wise means over no lesion are "both", also if there are lesions that are too small to be counted.
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
BY_LESION = ("lesion_f1", "lesion_dice", "lesion_hd95")


@dataclass(frozen=True)
class Diagonals:
    """The diagonal of an image."""

    mm: float
    voxels: float

    def number(self, value: Value) -> float:
        """The number that `value` stands for in this image."""
        words = {DIAGONAL: self.mm, DIAGONAL_VOXELS: self.voxels, UNDEFINED: math.nan}
        return words[value] if isinstance(value, str) else float(value)


def changed(policy: EmptyPolicy, changes: Iterable[str]) -> EmptyPolicy:
    """The policy with changes, such as "dice:both=1" or "hd95:prediction=diagonal".

    Raises:
        UserError: a change has another form, or an unknown metric, situation or value.
    """
    result = dict(policy)
    situations = [field.name for field in fields(EmptyValues)]
    for change in changes:
        name, _, value = change.partition("=")
        metric, _, situation = name.partition(":")
        allowed = situations[:1] if metric in BY_LESION else situations
        if metric not in policy or situation not in allowed or not value:
            raise UserError(
                f"invalid value for empty masks {change!r}: expected METRIC:SITUATION=VALUE, such as dice:both=1; "
                f"metrics: {', '.join(policy)}; situations: {', '.join(situations)} (lesion-wise metrics: both)"
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
        raise UserError(
            f"{change!r}: invalid value {text!r}: expected a number, {UNDEFINED}, {DIAGONAL} (mm) or {DIAGONAL_VOXELS}"
        )
    return number
