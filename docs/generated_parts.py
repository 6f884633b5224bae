"""What the site writes into its pages while it is built: the options of all commands, and the Python functions.

MkDocs calls ``on_page_markdown`` for each page (a hook in mkdocs.yml).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any

import factorizer_nnunet
from factorizer_nnunet.cli import build_parser

_COMMANDS = re.compile(r"<!-- commands:.*?-->", re.DOTALL)
_API = re.compile(r"<!-- api:.*?-->", re.DOTALL)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its generated parts in place of their marks."""
    markdown = _COMMANDS.sub(lambda mark: "\n\n".join(_commands()), markdown)
    return _API.sub(lambda mark: "\n\n".join(_api()), markdown)


def _commands() -> Iterator[str]:
    """A section for each subcommand, in the order of the command line's help."""
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, parser in action.choices.items():
        yield f"## {name}"
        yield (parser.description or "").strip()
        yield f"```text\n{_usage(parser)}\n```"
        for group in parser._action_groups:
            rows = [row for row in map(_row, group._group_actions) if row]
            if rows:
                title = "" if group.title in ("options", "positional arguments") else f"**{group.title}**\n\n"
                yield title + "\n".join(["| option | what it does |", "|---|---|", *rows])
        if parser.epilog:
            yield f"```text\n{parser.epilog.strip()}\n```"


def _usage(parser: argparse.ArgumentParser) -> str:
    return parser.format_usage().removeprefix("usage: ").strip()


def _row(action: argparse.Action) -> str:
    """An option's names and its help as a row of a table; "" for what the help does not show."""
    if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
        return ""
    metavar = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else "")
    shown = " ".join(metavar) if isinstance(metavar, tuple) else str(metavar)
    names = ", ".join(f"`{option}`" for option in action.option_strings)
    takes = f" `{shown}`" if shown and action.nargs != 0 else ""
    text = (action.help or "") % {"default": action.default, "prog": "", "type": "", "dest": action.dest}
    return f"| {names}{takes} | {text} |".replace("[CASE:]OLD", r"\[CASE:]OLD")


def _api() -> Iterator[str]:
    """A request to mkdocstrings for each name of the package."""
    for name in sorted(set(factorizer_nnunet.__all__) - {"__version__"}, key=str.casefold):
        yield f"::: factorizer_nnunet.{factorizer_nnunet._MODULES[name]}.{name}"
