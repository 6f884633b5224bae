"""The exception a caller may catch: a problem that the user can fix, described in the user's words."""

from __future__ import annotations


class UserError(Exception):
    """Some input of the user cannot be used; the message names it and how to fix it.

    The command line prints the message without a traceback and exits with status 2.
    """
