"""Models of the tests of predictions, with our network in them."""

from __future__ import annotations

import sys
from pathlib import Path

# Examples that live beside the tests of predictions and of reports.
sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("prediction", "report")]

from tests.prediction.conftest import model, root

__all__ = ["model", "root"]
