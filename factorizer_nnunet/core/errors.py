"""The exception a caller may catch: a problem the user can mend, described in the user's words."""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave cannot be used; the message names the thing and the mend.

    The command line prints the message without a traceback and exits with status 2.
    """
