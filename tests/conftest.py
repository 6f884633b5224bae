"""Which tests one process runs (pytest-xdist, ``--dist loadgroup``)."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests stay together, and all that use the planned and trained models, which are made only once."""
    for item in items:
        uses_models = item.path.parent.name == "pipeline" and "raw" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("models" if uses_models else item.path.name))
