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
    from factorizer_nnunet.evaluation.api import evaluate_arrays, evaluate_folder
    from factorizer_nnunet.explain.api import explain_case
    from factorizer_nnunet.network.variants import build_network
    from factorizer_nnunet.prediction.predictor import Predictor

__all__ = ["Predictor", "__version__", "build_network", "evaluate_arrays", "evaluate_folder", "explain_case"]

_MODULES = {
    "Predictor": "prediction.predictor",
    "build_network": "network.variants",
    "evaluate_arrays": "evaluation.api",
    "evaluate_folder": "evaluation.api",
    "explain_case": "explain.api",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: the network needs only torch, and the command line's help not even that."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"factorizer_nnunet.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
