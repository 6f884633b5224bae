"""What the README promises is there."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from factorizer_nnunet import cli
from factorizer_nnunet.network import Factorizer, FactorizerConfig

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http|#)([^)#]+)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_every_command_shown_exists(capsys: pytest.CaptureFixture[str]) -> None:
    shown = set(re.findall(r"factorizer-nnunet ([a-z]+(?:-[a-z]+)*)", README))
    assert {"env", "plan", "import-upstream", "demo", "doctor"} <= shown
    for command in shown:
        with pytest.raises(SystemExit) as end:
            cli.main([command, "--help"])
        assert end.value.code == 0


def test_every_setting_of_the_network_is_listed() -> None:
    listed = set(re.findall(r"`([a-z_]+)`", README.split("### The network in the plans file")[1].split("##")[0]))
    assert {field.name for field in dataclasses.fields(FactorizerConfig)} <= listed


def test_defaults_of_constructor_and_configuration_agree() -> None:
    constructor = inspect.signature(Factorizer).parameters
    for field in dataclasses.fields(FactorizerConfig):
        if field.default is not dataclasses.MISSING:
            assert constructor[field.name].default == field.default, field.name
