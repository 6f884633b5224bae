"""Which files are pages of the report, so that no other file is ever replaced by one."""

from __future__ import annotations

from pathlib import Path

from factorizer_nnunet.core.errors import UserError

MARK = "<!-- page of factorizer-nnunet report -->\n"  # the end of every page
# What pages of version 0.1.0 contain instead.
_EARLIER = b'<div id="kept" role="status"></div><script type="application/json" id="cases">'


def refuse_other_file(target: Path) -> None:
    """Check that a page can be written to ``target``.

    Raises:
        UserError: there is something else, or its folder does not exist.
    """
    if not target.absolute().parent.is_dir():
        raise UserError(f"{target.absolute().parent} does not exist: create the folder to write {target.name} to")
    if target.is_dir():
        raise UserError(f"{target} is a folder: give a file with -o, such as {target / 'report.html'}")
    if target.exists() and not (target.is_file() and _is_page(target)):
        raise UserError(
            f"{target} is not a page of this command and is not replaced: give another file with -o, or move it away"
        )


def _is_page(file: Path) -> bool:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}, which the page would replace: {error.strerror}") from error
    return content.endswith(MARK.encode()) or _EARLIER in content
