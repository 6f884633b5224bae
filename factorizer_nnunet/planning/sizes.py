"""The sizes S, M, L and XL of a planned Factorizer: width, depth and GPU memory target, as nnU-Net's ResEnc presets.

Each size is wider and deeper than the one before. Blocks at high resolution cost most memory and time, so depth is
added from the second stage on, and less of it in the decoder, whose blocks cost as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Size:
    """Width and depth of a network, and the memory it is planned for.

    Attributes:
        width: channels of the first stage; they double from stage to stage.
        widest_2d, widest_3d: largest number of channels of a stage.
        encoder_blocks, decoder_blocks: blocks per stage, highest resolution first; the last one applies to all
            lower stages.
        memory_target_gb: GPU memory in GB (10⁹ bytes) to choose patch and batch size for.
    """

    width: int
    widest_2d: int
    widest_3d: int
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    memory_target_gb: float


SIZES: dict[str, Size] = {
    "S": Size(width=32, widest_2d=512, widest_3d=320, encoder_blocks=(1,), decoder_blocks=(1,), memory_target_gb=6),
    "M": Size(width=40, widest_2d=640, widest_3d=400, encoder_blocks=(1, 2), decoder_blocks=(1,), memory_target_gb=10),
    "L": Size(
        width=48, widest_2d=768, widest_3d=480, encoder_blocks=(1, 2, 3), decoder_blocks=(1, 2), memory_target_gb=24
    ),
    "XL": Size(
        width=64, widest_2d=1024, widest_3d=640, encoder_blocks=(1, 3, 4), decoder_blocks=(1, 3), memory_target_gb=40
    ),
}
# Without a size: the network of S for nnU-Net's usual memory.
DEFAULT_SIZE = replace(SIZES["S"], memory_target_gb=8)


def per_stage(blocks: Sequence[int], stages: int) -> list[int]:
    """Blocks of every stage; the last entry applies to all lower stages."""
    return [blocks[min(stage, len(blocks) - 1)] for stage in range(stages)]
