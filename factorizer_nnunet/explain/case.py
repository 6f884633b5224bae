"""Explain one case in memory, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from factorizer_nnunet.explain.explainer import ExplainOptions, build_explainer
from factorizer_nnunet.explain.explanation import Explanation
from factorizer_nnunet.explain.inputs import cases_from
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL
from factorizer_nnunet.prediction.model import load_model


def explain_case(
    model: Path,
    files: Sequence[Path],
    *,
    fold: str = "0",
    truth: Path | None = None,
    device: str = "cpu",
    stages: Sequence[str] = (),
    heads: Sequence[int] = (),
    with_loadings: bool = False,
    deletion: int = 0,
    checkpoint: str = CHECKPOINT_FINAL,
) -> Explanation:
    """Predict and explain one case with a model folder; only temporary files are written.

    ``files`` is the image, one file per channel, ``truth`` its true segmentation; for the others see `ExplainOptions`.

    Raises:
        UserError: model, stage or head cannot be used.
        OSError: an image is truncated; nnU-Net's readers raise exceptions of their own.
    """
    loaded = load_model(Path(model), [fold], checkpoint)
    options = ExplainOptions(stages=tuple(stages), heads=tuple(heads), with_loadings=with_loadings, deletion=deletion)
    explainer = build_explainer(loaded, torch.device(device), options)
    (case,) = cases_from([Path(file) for file in files], loaded)
    return explainer(case, truth)
