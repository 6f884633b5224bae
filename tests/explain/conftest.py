"""Models of the tests of predictions, with our network in them."""

from __future__ import annotations

from tests.prediction.conftest import model, root

__all__ = ["model", "root"]
