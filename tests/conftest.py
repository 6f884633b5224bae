"""Choose Triton's interpreter on machines without a GPU, leave out exhaustive tests unless they are asked for, and keep
tests that share what is made for them in one process.
"""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "exhaustive" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    for item in items:  # one process runs a file, and all of ``pipeline`` that share its data sets and trained folds
        folder = item.path.parent.name
        shared = folder == "pipeline" and "raw" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group(folder if shared else f"{folder}/{item.path.name}"))
