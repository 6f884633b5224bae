"""The exception a caller may catch: a problem that the user can fix, described in the user's words."""

from __future__ import annotations

import sys
from types import TracebackType


class UserError(Exception):
    """Some input of the user cannot be used; the message names it and how to fix it.

    The command line prints the message without a traceback and exits with status 2.
    """


def print_user_errors_without_traceback() -> None:
    """Let a :class:`UserError` that nobody catches end this process with its message alone, in commands of others."""
    previous = sys.excepthook
    if getattr(previous, "__module__", None) == __name__:
        return

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, UserError):
            print(f"error: {error}", file=sys.stderr)
        else:
            previous(kind, error, traceback)

    sys.excepthook = hook
