"""The small models of the prediction tests, with our network."""

from __future__ import annotations

import sys
from pathlib import Path

# Examples that the tests of predictions and of reports share.
sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("prediction", "report")]

from tests.prediction.conftest import model, root

__all__ = ["model", "root"]
