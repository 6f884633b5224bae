"""What is installed, and who may import whom."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {"factorizer_nnunet": "factorizer_nnunet", "dataset_conversion": "factorizer_nnunet.dataset_conversion"}


def test_every_package_on_disk_is_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    on_disk = {"factorizer_nnunet.plans"}  # data alone
    for folder, package in TOP_LEVEL.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder).parts
            on_disk.add(".".join((package, *inner)))
    assert set(setup["options"]["packages"].split()) == on_disk | {"factorizer_nnunet.ext_trainer"}
