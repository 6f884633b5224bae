"""Which channel and class of a model each of a new data set starts from, by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.importing.dataset import Heads
from factorizer_nnunet.nnunet.dataset_json import BACKGROUND


@dataclass(frozen=True)
class Matching:
    """Where the channels, or the outputs, of a new data set come from.

    Attributes:
        old: names in the model.
        new: names in the data set.
        sources: for each of ``new`` the number of one of ``old``; None: it starts from the mean of the old.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]
    sources: tuple[int | None, ...]

    @property
    def is_identity(self) -> bool:
        """Whether both have the same in the same order."""
        return self.sources == tuple(range(len(self.old)))

    @property
    def unused(self) -> list[str]:
        """Names in the model that nothing starts from."""
        return [name for number, name in enumerate(self.old) if number not in self.sources]

    def rows(self) -> Iterator[tuple[str, str]]:
        """Each new name and what it starts from, in words."""
        averaged = ", ".join(name for name in self.old if name != BACKGROUND)
        for name, source in zip(self.new, self.sources, strict=True):
            if source is not None:
                yield name, self.old[source]
            else:
                yield name, "new, 0 everywhere" if name == BACKGROUND else f"new, from the mean of {averaged}"


@dataclass(frozen=True)
class Matched:
    """Channels and outputs of a new data set, and where they come from."""

    channels: Matching
    outputs: Matching


def match(old: Heads, new: Heads, maps: Sequence[str] = ()) -> Matched:
    """Match by name; spaces, dashes, underscores and case do not count.

    Args:
        old: channels and outputs of the model.
        new: those of the data set.
        maps: ``OLD=NEW`` for names that differ, of channels or outputs.

    Raises:
        UserError: a text of ``maps`` names something unknown, or two old channels or outputs for one new.
    """
    channels: dict[str, str] = {}
    outputs: dict[str, str] = {}
    for text in maps:
        found = False
        for chosen, olds, news in ((channels, old.channels, new.channels), (outputs, old.outputs, new.outputs)):
            for first, second in _splits(text):
                if first in olds and second in news:
                    if chosen.setdefault(second, first) != first:
                        raise UserError(
                            f"--map gives {chosen[second]} and {first} of the model to {second}: only one of them can "
                            "start it. Leave one out"
                        )
                    found = True
        if not found:
            raise UserError(_unknown(text, old, new))
    return Matched(
        _matching(old.channels, new.channels, channels),
        _matching(old.outputs, new.outputs, outputs),
    )


def _matching(old: Sequence[str], new: Sequence[str], given: Mapping[str, str]) -> Matching:
    numbers = {name: number for number, name in enumerate(old)}
    by_key = _unambiguous(old)
    keys_of_new = _unambiguous(new)
    mapped = set(given.values())
    sources: list[int | None] = []
    for name in new:
        key = _key(name)
        found = given.get(name, name if name in numbers else None)
        if found is None and keys_of_new.get(key) == name:
            found = by_key.get(key)
        if name not in given and found in mapped:
            found = None  # the user has given it to another
        sources.append(None if found is None else numbers[found])
    return Matching(tuple(old), tuple(new), tuple(sources))


def _key(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _unambiguous(names: Sequence[str]) -> dict[str, str]:
    """Names by their key, without those that share one."""
    count = Counter(map(_key, names))
    return {_key(name): name for name in names if count[_key(name)] == 1}


def _splits(text: str) -> Iterator[tuple[str, str]]:
    """Both sides of each ``=`` in a text: names may contain one, too."""
    parts = text.split("=")
    for place in range(1, len(parts)):
        yield "=".join(parts[:place]).strip(), "=".join(parts[place:]).strip()


def _unknown(text: str, old: Heads, new: Heads) -> str:
    example = f"{(old.channels or old.outputs)[0]}={(new.channels or new.outputs)[0]}"
    if "=" not in text:
        return f"--map {text} has no =: write OLD=NEW, a name in the model and one in the data set, such as {example}"
    return (
        f"--map {text} does not name a channel or class of the model and one of the data set. The model has channels "
        f"{', '.join(old.channels)} and classes {', '.join(old.outputs)}; the data set has channels "
        f"{', '.join(new.channels)} and classes {', '.join(new.outputs)}"
    )
