"""Parts of a Factorizer whose weights a training leaves as they are, for fine-tuning on few cases."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

# Beginnings of the weights' names. The last layers, which give the classes, are never frozen.
_WEIGHTS = {
    "stem": ("encoder.stem.",),
    "encoder": ("encoder.",),
    "decoder": ("decoder.upsamples.", "decoder.adapters.", "decoder.stages."),
}


def freeze(network: nn.Module, parts: Collection[str]) -> int:
    """Freeze parts of a Factorizer; returns the number of weights in them.

    Args:
        network: a Factorizer, also if it is compiled.
        parts: ``stem``, the first convolution; ``encoder``, with the stem; ``decoder``, without the last layers.
    """
    beginnings = tuple(beginning for part in parts for beginning in _WEIGHTS[part])
    frozen = 0
    for name, weight in network.named_parameters():
        if beginnings and name.removeprefix("_orig_mod.").startswith(beginnings):
            weight.requires_grad_(False)
            frozen += weight.numel()
    return frozen
