"""The message for a loss that is not finite: where it occurred, and what to check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from factorizer_nnunet.nnunet.names import TRAINER


def describe_divergence(
    loss: float, batch: Mapping[str, Any], network: nn.Module, *, where: str, learning_rate: float, kept: Path | None
) -> str:
    """Describe where the loss diverged and what may be wrong.

    Args:
        loss: NaN or infinite.
        batch: from nnU-Net's data loader: ``data`` (batch, channels, *spatial) and case names as ``keys``.
        network: after the step.
        where: the step, such as ``step 17 of epoch 3``.
        learning_rate: of the step.
        kept: the checkpoint from which ``--c`` continues; None if there is none.
    """
    cases = [str(case) for case in batch.get("keys", ())]
    of_cases = f" (cases {', '.join(cases)})" if cases else ""
    after = f"{kept} is kept, and --c continues from it" if kept else "No checkpoint had been written"
    return f"the loss is {loss} in {where}{of_cases}. {_cause(batch['data'], cases, network, learning_rate)}. {after}"


def _cause(data: torch.Tensor, cases: list[str], network: nn.Module, learning_rate: float) -> str:
    finite = torch.isfinite(torch.as_tensor(data)).flatten(1).all(1).tolist()
    if not all(finite):
        wrong = [case for case, fine in zip(cases, finite, strict=False) if not fine]
        which = f" of {', '.join(wrong)}" if wrong else ""
        return f"The images{which} contain NaN or infinite values: fix the raw data and preprocess again"
    spoilt = next((name for name, p in network.named_parameters() if not torch.isfinite(p).all()), None)
    weights = f"the weights no longer are ({spoilt} first)" if spoilt else "so are the weights"
    return (
        f"The images are finite, {weights}. Look at progress.png: if the loss rose before, train with a learning rate "
        f"below {learning_rate:.1e} (such as {TRAINER}_lr1e-3); if it fell, check these cases for labels or "
        "intensities unlike the others'"
    )
