"""Fit what calibrates the probabilities of a label or region."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from factorizer_nnunet.calibration.logit_scaling import CENTRES, LogitScaling

_SLOPES = (0.1, 10.0)  # 1 / temperature
_OFFSETS = (-5.0, 5.0)


def fit_scaling(counts: np.ndarray) -> LogitScaling:
    """The most likely temperature, from 0.1 to 10, and offset, from -5 to 5: a logistic regression.

    Args:
        counts: from ``logit_counts``; if voxels outside of the region, or in it, are missing, nothing is changed.
    """
    if not counts.sum(axis=1).all():
        return LogitScaling()
    total = counts.sum(axis=0)

    def cost(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits = parameters[0] * CENTRES + parameters[1]
        value = counts[0] @ np.logaddexp(0, logits) + counts[1] @ np.logaddexp(0, -logits)
        residuals = total / (1 + np.exp(-logits)) - counts[1]
        return value / total.sum(), np.array([residuals @ CENTRES, residuals.sum()]) / total.sum()

    slope, offset = minimize(cost, (1.0, 0.0), jac=True, method="L-BFGS-B", bounds=(_SLOPES, _OFFSETS)).x
    return LogitScaling(1 / float(slope), float(offset))
