"""What to say of a loss that is no finite number: where it came up, and what to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from factorizer_nnunet.nnunet.names import TRAINER


def describe_divergence(
    loss: float, batch: Mapping[str, Any], network: nn.Module, *, where: str, learning_rate: float, kept: str | None
) -> str:
    """The message.

    Args:
        loss: NaN or infinite.
        batch: of nnU-Net's data loader: ``data`` (batch, channels, *spatial) and the cases as ``keys``.
        network: as the step left it.
        where: the step, such as ``step 17 of epoch 3``.
        learning_rate: of the step.
        kept: the checkpoint that ``--c`` goes on from, None where there is none.
    """
    cases = [str(case) for case in batch.get("keys", ())]
    of_cases = f" (cases {', '.join(cases)})" if cases else ""
    after = f"{kept} is kept, and --c goes on from it" if kept else "No checkpoint had been written"
    return f"the loss is {loss} in {where}{of_cases}. {_look_at(batch['data'], cases, network, learning_rate)}. {after}"


def _look_at(data: torch.Tensor, cases: list[str], network: nn.Module, learning_rate: float) -> str:
    finite = torch.isfinite(torch.as_tensor(data)).flatten(1).all(1).tolist()
    if not all(finite):
        wrong = [case for case, fine in zip(cases, finite, strict=False) if not fine]
        which = f" of {', '.join(wrong)}" if wrong else ""
        return f"The images{which} hold NaN or infinite values: mend the raw data and preprocess again"
    spoilt = next((name for name, p in network.named_parameters() if not torch.isfinite(p).all()), None)
    weights = f"the weights are not any more ({spoilt} first)" if spoilt else "so are the weights"
    return (
        f"The images are finite, {weights}. Look at progress.png: where the loss rose before, train with a rate below "
        f"{learning_rate:.1e} ({TRAINER}_lr1e-3 and the like); where it fell, look at these cases for labels or "
        "intensities unlike the others'"
    )
