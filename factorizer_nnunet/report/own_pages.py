"""Which files are pages of the report, so that no other file and no edited page is ever replaced by one."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.set_aside import EDITED, set_aside

# The end of every page has a digest of all before it, so that an edited page is recognised.
_MARK = "<!-- page of factorizer-nnunet report, sha256 {} -->\n"
_MARKED = re.compile(rb"(.*)<!-- page of factorizer-nnunet report(?:, sha256 ([0-9a-f]{64}))? -->\s*", re.DOTALL)
# What pages of version 0.1.0 contain instead.
_EARLIER = b'<div id="kept" role="status"></div><script type="application/json" id="cases">'


def page_file(target: Path) -> Path:
    """The file that a page for ``target`` is written to: where a link leads, so that the link stays.

    Raises:
        UserError: there is something else than a page, or its folder does not exist.
    """
    file = Path(os.path.realpath(target))
    if not file.parent.is_dir():
        raise UserError(f"{file.parent} does not exist: create the folder to write {file.name} to")
    if file.is_dir():
        raise UserError(f"{target} is a folder: give a file with -o, such as {target / 'report.html'}")
    if os.path.lexists(file) and not (file.is_file() and _is_page(_content(file))):
        raise UserError(
            f"{target} is not a page of this command and is not replaced: give another file with -o, or move it away"
        )
    return file


def write_page(file: Path, page: str) -> Path | None:
    """Write a page completely or not at all; an existing page that is not as this command wrote it is renamed first.

    Args:
        file: from ``page_file``.
        page: the HTML.

    Returns:
        The renamed page, if any. A page of an earlier version, without a digest, is always renamed.

    Raises:
        UserError: the existing file cannot be read.
        OSError: the page cannot be written.
    """
    kept = set_aside(file, EDITED) if file.exists() and not _is_unchanged(_content(file)) else None
    write_text_atomically(file, page + _MARK.format(hashlib.sha256(page.encode()).hexdigest()))
    return kept


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}, which the page would replace: {error.strerror}") from error


def _is_page(content: bytes) -> bool:
    return _MARKED.search(content) is not None or _EARLIER in content


def _is_unchanged(content: bytes) -> bool:
    found = _MARKED.fullmatch(content)
    return found is not None and hashlib.sha256(found[1]).hexdigest().encode() == found[2]
