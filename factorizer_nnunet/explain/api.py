"""Explanations from Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.explain.run import FORMATS, ExplainRequest, explain

PathLike = str | os.PathLike[str]


def explain_case(
    images: PathLike | Sequence[PathLike],
    model: PathLike,
    output: PathLike,
    *,
    fold: int | str = 0,
    stages: Sequence[str] = (),
    formats: Sequence[str] = FORMATS,
    device: str | None = None,
) -> Path:
    """Predict a case and show what the components of a trained Factorizer respond to, as its command does.

    Args:
        images: the files of the case, one for each channel.
        model: folder ``TRAINER__PLANS__CONFIGURATION``.
        output: gets a folder with the name of the case.
        fold: whose weights are used: a number, or ``all``.
        stages: such as ``encoder-3``, counted from the highest resolution; all that have an NMF if empty.
        formats: any of ``nifti`` (a map of each component), ``png`` (panels) and ``html`` (a page).
        device: ``cuda``, ``cpu`` or ``mps``; by default a GPU if there is one.

    Returns:
        the folder of the case.

    Raises:
        UserError: model, images or output cannot be used, or the case failed.

    Examples:
        >>> channels = ["a_0000.nii.gz", "a_0001.nii.gz"]
        >>> folder = explain_case(channels, "model", "explained", formats=["nifti"], device="cpu")
        >>> folder.name, any(folder.glob("*.nii.gz"))
        ('a', True)
    """
    files = [images] if isinstance(images, (str, os.PathLike)) else images
    outcome = explain(
        ExplainRequest(
            model=Path(model),
            images=tuple(Path(file) for file in files),
            out=Path(output),
            fold=str(fold),
            stages=tuple(stages),
            formats=tuple(formats),
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            progress_bar=False,
        )
    )
    for case, reason in outcome.failed.items():
        raise UserError(f"{case}: {reason}")
    (case,) = (*outcome.explained, *outcome.skipped)
    return Path(output) / case
