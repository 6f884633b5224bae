"""What is installed, and who may import whom."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {"factorizer_nnunet": "factorizer_nnunet", "dataset_conversion": "factorizer_nnunet.dataset_conversion"}

# Each package or module directly below factorizer_nnunet, and those that it may import. Every line names only lines
# above it, so that imports point one way.
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "network": set(),
    "imaging": {"core"},
    "nnunet": {"core", "imaging", "network"},
    "pages": {"core", "imaging"},
    "dataset_conversion": {"core", "imaging", "nnunet", "pages"},
    "dataset_check": {"core", "imaging", "nnunet"},
    "planning": {"core", "dataset_check", "imaging", "nnunet", "network"},
    "postprocessing": {"core", "imaging", "nnunet"},
    "calibration": {"core", "nnunet"},
    "prediction": {"calibration", "core", "imaging", "nnunet", "network", "postprocessing"},
    "evaluation": {"core", "imaging", "nnunet"},
    "training": {"core", "nnunet", "network", "planning"},
    "importing": {"core", "nnunet", "network", "planning", "training"},
    "finetuning": {
        "core",
        "dataset_check",
        "nnunet",
        "network",
        "planning",
        "prediction",
        "training",
    },
    "explain": {"core", "imaging", "nnunet", "network", "pages", "prediction", "evaluation"},
    "exporting": {"core", "nnunet", "network", "postprocessing", "calibration", "prediction"},
    "label_check": {"core", "imaging", "nnunet", "evaluation"},
    "report": {"core", "imaging", "nnunet", "pages", "evaluation", "label_check", "calibration"},
    "tuning": {
        "core",
        "imaging",
        "nnunet",
        "network",
        "pages",
        "planning",
        "training",
        "postprocessing",
        "prediction",
        "evaluation",
        "report",
    },
    "channel_subsets": {"core", "nnunet", "prediction", "evaluation", "tuning"},
    "quality": {
        "core",
        "imaging",
        "nnunet",
        "pages",
        "postprocessing",
        "prediction",
        "explain",
        "calibration",
        "report",
        "tuning",
    },
    "running": {
        "core",
        "dataset_check",
        "imaging",
        "nnunet",
        "network",
        "planning",
        "postprocessing",
        "training",
        "evaluation",
        "calibration",
        "report",
    },
    "demo": {"core", "imaging", "nnunet", "pages", "dataset_conversion", "running", "report", "training", "evaluation"},
    "doctor": {"core", "nnunet", "network", "training"},
    "ext_trainer": {"core", "nnunet", "training"},
}
ABOVE_ALL = {"commands", "cli", "__main__", "__init__"}  # the command line may import every package


def test_every_package_on_disk_is_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    on_disk = {"factorizer_nnunet.plans"}  # data alone
    for folder, package in TOP_LEVEL.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder).parts
            on_disk.add(".".join((package, *inner)))
    assert set(setup["options"]["packages"].split()) == on_disk | {"factorizer_nnunet.ext_trainer"}


def test_the_table_names_every_package() -> None:
    names = {_below_package(module) for module in _modules()}
    assert names - ABOVE_ALL == set(MAY_IMPORT)


def test_imports_point_one_way() -> None:
    above: set[str] = set()
    for package, allowed in MAY_IMPORT.items():
        assert allowed <= above, f"{package} may import {allowed - above}, which come below it in the table"
        above.add(package)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_the_table_allows(package: str) -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, imported in _imports()
        if _below_package(module) == package
        and imported != "factorizer_nnunet"  # the version
        and _below_package(imported) not in MAY_IMPORT[package] | {package}
    ]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    needed: dict[str, set[str]] = {module: set() for module in _modules()}
    for module, imported in _imports():
        if imported != module and imported in needed and imported != "factorizer_nnunet":
            needed[module].add(imported)
    while free := {module for module, imports in needed.items() if not imports}:
        needed = {module: imports - free for module, imports in needed.items() if module not in free}
    assert not needed, f"circles among {sorted(needed)}"


def test_the_network_needs_no_nnunet() -> None:
    wrong = [module for module, imported in _imports("nnunetv2") if _below_package(module) == "network"]
    assert not wrong


def _below_package(module: str) -> str:
    """``network`` of ``factorizer_nnunet.network.blocks``."""
    return [*module.split("."), "__init__"][1]


@cache
def _modules() -> dict[str, Path]:
    """The file of every module, by its dotted name as installed."""
    found = {}
    for folder, package in TOP_LEVEL.items():
        for path in (ROOT / folder).rglob("*.py"):
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *inner)).removesuffix(".__init__")] = path
    return found


@cache
def _imports(library: str = "factorizer_nnunet") -> list[tuple[str, str]]:
    """Every import of modules of a library, in functions, too: the module that imports and the one imported."""
    return [(module, name) for module, path in _modules().items() for name in _imported(path, library)]


def _imported(path: Path, library: str) -> Iterator[str]:
    known = _modules()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports here are absolute"
            source = node.module or ""
            names = [f"{source}.{alias.name}" if f"{source}.{alias.name}" in known else source for alias in node.names]
        yield from (name for name in names if name.split(".")[0] == library)


def test_tests_that_share_fixtures_stay_in_one_process(request: pytest.FixtureRequest) -> None:
    """Versions of pytest and pytest-xdist that do not fit forget the groups of ``conftest.py``, which costs minutes."""
    if getattr(request.config.option, "loadgroup", False):  # of a process of pytest-xdist
        assert "@" in request.node.nodeid
