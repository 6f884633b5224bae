"""Which channel and class of a model each of a new data set starts from, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.dataset_json import BACKGROUND, name_key
from factorizer_nnunet.nnunet.heads import Heads


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

    nnU-Net chooses the normalisation by a channel's name, so several channels may be called CT: the first is matched
    with the first, the second with the second, and those left over in the data set are new.

    Args:
        old: channels and outputs of the model.
        new: those of the data set.
        maps: ``OLD=NEW`` for names that differ, of channels or outputs.

    Raises:
        UserError: a text of ``maps`` names something unknown, the background, or two old channels or outputs for one
            new.
    """
    channels: dict[str, str] = {}
    outputs: dict[str, str] = {}
    for text in maps:
        found = False
        for chosen, olds, news in ((channels, old.channels, new.channels), (outputs, old.outputs, new.outputs)):
            for old_name, new_name in _splits(text):
                if old_name in olds and new_name in news:
                    if chosen is outputs and BACKGROUND in (old_name, new_name):
                        raise UserError(
                            f"--map {text}: another class cannot start from the background, nor the background from "
                            "another. Leave it out"
                        )
                    if chosen.setdefault(new_name, old_name) != old_name:
                        raise UserError(
                            f"--map gives {chosen[new_name]} and {old_name} of the model to {new_name}: only one of "
                            "them can start it. Leave one out"
                        )
                    found = True
        if not found:
            raise UserError(_unknown(text, old, new))
    return Matched(
        _matching(old.channels, new.channels, channels),
        _matching(old.outputs, new.outputs, outputs),
    )


def _matching(old: Sequence[str], new: Sequence[str], given: Mapping[str, str]) -> Matching:
    places = {place: number for number, place in enumerate(_places(old))}
    by_key = _unambiguous(old)
    keys_of_new = _unambiguous(new)
    mapped = set(given.values())
    sources: list[int | None] = []
    for name, occurrence in _places(new):
        key = name_key(name)
        found = given.get(name, name if name in old else None)
        if found is None and keys_of_new.get(key) == name:
            found = by_key.get(key)
        if name not in given and found in mapped:
            found = None  # the user has given it to another
        sources.append(None if found is None else places.get((found, occurrence)))
    return Matching(tuple(old), tuple(new), tuple(sources))


def _places(names: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Each name with the number of times that it has occurred before."""
    seen: Counter[str] = Counter()
    for name in names:
        yield name, seen[name]
        seen[name] += 1


def _unambiguous(names: Sequence[str]) -> dict[str, str]:
    """Names by their key, without different ones that share one."""
    count = Counter(map(name_key, set(names)))
    return {name_key(name): name for name in names if count[name_key(name)] == 1}


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
