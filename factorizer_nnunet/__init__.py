"""Factorizer as a drop-in backbone for nnU-Net.

The package in the order of the data flow: ``dataset_conversion`` (challenge data to nnU-Net raw format), ``planning``
(fingerprint to plans), ``training`` (plans to trained folds, found by nnU-Net through ``ext_trainer``), ``network``
(the model itself, torch only) and ``demo`` (all of it on synthetic patients). ``importing`` brings in models of the
authors' implementation.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from factorizer_nnunet.prediction.predictor import Predictor

__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    """Import ``Predictor`` when it is asked for: it needs nnU-Net, which the network alone does not."""
    if name == "Predictor":
        return importlib.import_module("factorizer_nnunet.prediction.predictor").Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
