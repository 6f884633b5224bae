"""Names from files that become names of files: each must be one plain component, so that nothing leads outside."""

from __future__ import annotations

import os

from factorizer_nnunet.core.errors import UserError

MAX_BYTES = 255  # of a file name, on nearly every file system


def path_component(name: object, source: str) -> str:
    """The name itself, if it can be joined to a folder without leaving it.

    Args:
        name: as a file from outside gives it.
        source: where it stands, for the message, such as "data_identifier in plans.json".

    Raises:
        UserError: it is not a text, is empty, leads elsewhere (``..``, separators), or cannot name a file.
    """
    problem = component_problem(name)
    if problem is not None:
        raise UserError(f"{source}: {name!r} {problem}. Use a plain name such as case_01")
    assert isinstance(name, str)
    return name


def component_problem(name: object) -> str | None:
    """Why a name cannot be one component of a path; None if it can."""
    if not isinstance(name, str):
        return "is not a text"
    if name.strip() in ("", ".", ".."):
        return "is not the name of a file or folder"
    if any(separator in name for separator in ("/", "\\", os.sep)):
        return "contains a separator of folders"
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if not name.isprintable():
        return "contains control characters"
    return f"is longer than {MAX_BYTES} bytes" if size > MAX_BYTES else None
