"""Length and kind of a training, as the trainer's name says.

nnU-Net distinguishes trainers of other lengths by a suffix, and keeps their results in folders of that name. Here one
grammar replaces a class per length: ``nnUNetTrainerFactorizer_20epochs``, ``..._6h`` or ``..._30m`` instead of epochs,
``..._50iters``, ``..._lr3e-4``, ``..._warmup100``, ``..._freezeencoder``, ``..._channeldrop``, ``..._repeat2``, or
several in this order, such as ``nnUNetTrainerFactorizer_20epochs_50iters_lr3e-4_channeldrop``.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from decimal import Decimal

from factorizer_nnunet.nnunet.names import CHANNEL_DROP, TRAINER_SUFFIX

_SUFFIX = re.compile(TRAINER_SUFFIX)
PARTS = ("stem", "encoder", "decoder")  # of the network that can be frozen, see ``training.freezing``


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Length and kind of a training; None means nnU-Net's or the recipe's own value.

    Attributes:
        minutes: of the complete command with its validation, from which the number of epochs follows.
        iterations_per_epoch: with a time, the most that an epoch may have.
        warmup: iterations over which the learning rate rises.
        freeze: parts of the network whose weights stay as they are, of ``PARTS``.
        channel_drop: whether channels are left out of samples, see ``training.channel_drop``.
    """

    epochs: int | None = None
    minutes: float | None = None
    iterations_per_epoch: int | None = None
    learning_rate: float | None = None
    warmup: int | None = None
    freeze: tuple[str, ...] = ()
    channel_drop: bool = False

    @property
    def validation_iterations(self) -> int | None:
        """Validation batches per epoch, in nnU-Net's proportion of 50 to 250."""
        return None if self.iterations_per_epoch is None else max(1, self.iterations_per_epoch // 5)


def budget_from_suffix(suffix: str) -> Budget:
    """Read a suffix such as ``_20epochs_50iters_lr3e-4`` or ``_6h``.

    Raises:
        ValueError: the suffix is not of this form, or a value is zero.
    """
    match = _SUFFIX.fullmatch(suffix)
    if match is None:
        raise ValueError(
            f"invalid trainer suffix {suffix!r}: expected any of _<n>epochs (or a time, _<n>h or _<n>m), _<n>iters, "
            f"_lr<x>, _warmup<n>, _freeze<part> ({', '.join(PARTS)}), {CHANNEL_DROP} and _repeat<n>, in this order, "
            "e.g. _20epochs_50iters_lr3e-4 or _6h"
        )
    epochs, hours, minutes, iterations, rate = match.group("epochs", "hours", "minutes", "iters", "lr")
    warmup = match.group("warmup")
    time = float(minutes) if minutes else 60 * float(hours) if hours else None
    budget = Budget(
        epochs=None if epochs is None else int(epochs),
        minutes=time,
        iterations_per_epoch=None if iterations is None else int(iterations),
        learning_rate=None if rate is None else float(rate),
        warmup=None if warmup is None else int(warmup),
        freeze=tuple(dict.fromkeys(match.group("freeze").split("_freeze")[1:])),
        channel_drop=match.group("drop") is not None,
    )
    lengths = {name: value for name, value in asdict(budget).items() if not isinstance(value, bool | tuple)}
    wrong = [name for name, value in lengths.items() if value is not None and not 0 < value < math.inf]
    if wrong:
        name = "hours" if wrong[0] == "minutes" and hours else wrong[0]
        raise ValueError(f"invalid trainer suffix {suffix!r}: {name} must be above 0 and finite")
    return budget


def changed_suffix(
    suffix: str,
    learning_rate: float | None = None,
    warmup: int | None = None,
    freeze: tuple[str, ...] = (),
) -> str:
    """A suffix with another learning rate, warm-up and frozen parts; what is None or empty stays as it is.

    Raises:
        ValueError: the suffix is not of the form that ``budget_from_suffix`` reads, or a value is not possible.
    """
    before, match = budget_from_suffix(suffix), _SUFFIX.fullmatch(suffix)
    assert match is not None  # as just read
    rate = _digits(learning_rate) if learning_rate is not None else match.group("lr")
    iterations = warmup if warmup is not None else before.warmup
    changed = "".join(
        (
            match.group("length"),
            "" if rate is None else f"_lr{rate}",
            "" if iterations is None else f"_warmup{iterations}",
            *(f"_freeze{part}" for part in freeze or before.freeze),
            CHANNEL_DROP if before.channel_drop else "",
            match.group("repeat") or "",
        )
    )
    budget_from_suffix(changed)
    return changed


def _digits(number: float) -> str:
    """A number without a point, which names of classes cannot have: 3e-4, 15e-5."""
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    text = "".join(map(str, digits))
    return f"{'-' * sign}{text}" + (f"e{exponent}" if exponent else "")
