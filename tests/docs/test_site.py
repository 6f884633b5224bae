"""The site is built without a warning, has every page, and its generated parts are complete."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import factorizer_nnunet
from factorizer_nnunet.cli import build_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``make docs`` builds it: strict, so that a wrong link or a page without a place in the navigation fails."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_commands_are_complete(site: Path) -> None:
    text = (site / "commands.html").read_text(encoding="utf-8")
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, parser in action.choices.items():
        assert f'<h2 id="{name}">' in text
        shown = [a for a in parser._actions if a.help != argparse.SUPPRESS and not isinstance(a, argparse._HelpAction)]
        missing = [option for a in shown for option in a.option_strings if f"<code>{option}</code>" not in text]
        assert not missing, name


def test_the_functions_of_the_package_are_complete(site: Path) -> None:
    text = (site / "python.html").read_text(encoding="utf-8")
    for name in set(factorizer_nnunet.__all__) - {"__version__"}:
        module = factorizer_nnunet._MODULES[name]
        assert f'id="factorizer_nnunet.{module}.{name}"' in text


def shown_commands() -> Iterator[tuple[str, list[str]]]:
    """The words of every factorizer-nnunet command in a block of a page."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^ *```bash\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
            for line in block.replace("\\\n", " ").splitlines():
                found = re.search(r"(?:^|\$\()\s*factorizer-nnunet ([^)#]*)", line)
                if found and "[" not in line:  # optional parts of a general form
                    yield page.relative_to(ROOT).as_posix(), shlex.split(found[1].rstrip('"').split("|")[0])


@pytest.mark.parametrize(("page", "words"), list(shown_commands()))
def test_commands_of_pages_are_understood(page: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        build_parser().parse_args(words)
    except SystemExit as end:  # such as --template list, which prints and ends
        assert end.code == 0, capsys.readouterr().err
