"""The small models of the prediction tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "prediction"))

from tests.prediction.conftest import model, root

__all__ = ["model", "root"]
