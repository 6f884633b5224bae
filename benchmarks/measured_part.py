"""Parts of a page that a benchmark writes, between marks that name it."""

from __future__ import annotations

from pathlib import Path


def replace_measured(page: Path, script: str, text: str) -> None:
    """Put ``text`` between the marks of ``script``, such as ``benchmarks/explain_cost.py``; the rest stays.

    Raises:
        ValueError: the page has no such marks.
    """
    begin, end_mark = f"<!-- measured: begin, written by {script} -->", f"<!-- measured: end, {script} -->"
    content = page.read_text(encoding="utf-8")
    before, mark, rest = content.partition(begin)
    _, end, after = rest.partition(end_mark)
    if not mark or not end:
        raise ValueError(f"{page} has no part of {script}: write {begin} and {end_mark} where it shall come")
    page.write_text(f"{before}{begin}\n{text}{end_mark}{after}", encoding="utf-8")
