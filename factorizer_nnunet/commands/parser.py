"""How the options of every subcommand are read.

nnU-Net spells options in four ways: ``-device``, ``--npz``, ``--disable_tta``, ``-step_size``. Here one or two dashes,
dashes or underscores within a name, all name the same option. Names are not abbreviated: a script must not change its
meaning when an option is added.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

_NUMBER = re.compile(r"-\.?\d")


class SubcommandParser(argparse.ArgumentParser):
    """A parser that knows each option in every spelling, and the nearest one to an unknown option."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as argparse does, after giving each option the spelling it was declared with."""
        found, extra = super().parse_known_args(None if args is None else list(self._respelled(args)), namespace)
        if extra:
            self.error(f"unexpected argument {extra[0]}")
        return found, extra

    def _respelled(self, args: Sequence[str]) -> Iterator[str]:
        declared = list(self._option_string_actions)  # also names that the help does not show
        by_name = {_name(option): option for option in reversed(declared)}
        values = iter(args)
        for text in values:
            option, equals, value = text.partition("=")
            if text == "--":
                yield text
                yield from values
            elif option in declared or not _is_option(text):
                yield text
            elif _name(option) in by_name:
                yield f"{by_name[_name(option)]}{equals}{value}"
            else:
                self._refuse_unknown(option, by_name)

    def _refuse_unknown(self, option: str, by_name: dict[str, str]) -> NoReturn:
        near = difflib.get_close_matches(_name(option), by_name, n=1)
        advice = f"; did you mean {by_name[near[0]]}?" if near else f"; see {self.prog} --help"
        self.error(f"unknown option {option}{advice}")


def _is_option(text: str) -> bool:
    """Whether argparse takes a text for an option: not a number, and not a text with a space."""
    return text.startswith("-") and len(text) > 1 and not _NUMBER.match(text) and " " not in text


def _name(option: str) -> str:
    return option.lstrip("-").replace("_", "-")
