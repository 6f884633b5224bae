"""The examples of other tests, of which pages are made here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("explain", "report")]
