"""What the README and the other pages promise exists: links, commands, settings."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
from test_boundaries import MAY_IMPORT

from factorizer_nnunet.evaluation.metrics import LESIONS, OVERLAP, SURFACE, VOLUME, VOXELS
from factorizer_nnunet.network import Factorizer, FactorizerConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LINKS = [
    (page.relative_to(ROOT).as_posix(), link)
    for page in PAGES
    for link in sorted(set(re.findall(r"\]\((?!http)([^)]+)\)", page.read_text(encoding="utf-8"))))
]


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_links_lead_somewhere(page: str, link: str) -> None:
    file, _, anchor = link.partition("#")
    target = (ROOT / page).parent / file if file else ROOT / page
    assert target.exists()
    if anchor:
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_benchmarks_named_in_pages_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for before, name in re.findall(r"(git checkout \w+ && )?python -m benchmarks\.(\w+)", text):
        found = (ROOT / "benchmarks" / f"{name}.py").exists() or (ROOT / "benchmarks" / name / "__main__.py").exists()
        assert before or found, f"benchmarks.{name} is gone: give the revision that has it"


def test_every_setting_of_the_network_is_listed() -> None:
    page = (ROOT / "docs" / "network.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`([a-z_]+)`", page.split("## Settings in the plans file")[1].split("##")[0]))
    assert {field.name for field in dataclasses.fields(FactorizerConfig)} <= listed


def test_every_metric_is_listed() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`([a-z_0-9]+)`", page.split("## Metrics")[1].split("##")[0]))
    assert {metric.key for metric in (*OVERLAP, *SURFACE, *VOLUME, *LESIONS, *VOXELS)} <= listed


def test_the_constructor_accepts_exactly_the_listed_settings() -> None:
    config = FactorizerConfig.from_settings({"features_per_stage": [8, 16], "strides": [[1, 1], [2, 2]]})
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    assert Factorizer(1, 2, **settings).config == config
    signature = inspect.signature(Factorizer).parameters  # nnU-Net adds the first three to arch_kwargs of the plans
    assert list(signature) == ["input_channels", "num_classes", "deep_supervision", "settings"]
    with pytest.raises(ValueError, match="unknown setting 'num_iter': did you mean num_iters"):
        Factorizer(1, 2, **settings, num_iter=3)


def test_the_architecture_page_has_the_table_of_imports() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", page, re.MULTILINE)
    assert {package: set(re.findall(r"\w+", allowed)) for package, allowed in rows} == MAY_IMPORT
