"""Memory of augmentation on the device, measured against its bound: ``python -m benchmarks.augmentation_memory``.

Batches of random boxes, from images as large as nnU-Net's region, go through the device's part of nnU-Net's pipeline on
the CPU, with every transform applied to each sample and channel. All tensors that exist at a time are counted, with the
batch that trains meanwhile. Writes augmentation_memory.md.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.output_paths import output_folder_or_none
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.planning.augmentation_memory import augmentation_bytes, region_size
from factorizer_nnunet.training.augmentation.augmenter import transformed_batch
from factorizer_nnunet.training.augmentation.loader import BOX_PARTS
from factorizer_nnunet.training.augmentation.pipeline import DividedPipeline, divide

_TO = Tensor.to


@dataclass(frozen=True)
class Form:
    """What a data set and its plans ask of the pipeline."""

    name: str
    patch: tuple[int, ...]
    channels: int = 1
    previous: tuple[int, ...] = ()  # labels of a cascade's previous stage
    regions: tuple[tuple[int, ...], ...] = ()
    batch: int = 2


FORMS = (
    Form("3D", (48, 48, 48)),
    Form("3D, 4 channels, regions", (40, 48, 40), channels=4, regions=((1, 2, 3), (2, 3), (3,))),
    Form("anisotropic (dummy 2D)", (12, 64, 64), channels=2),
    Form("cascade", (40, 40, 40), previous=(1, 2, 3)),
    Form("2D", (192, 192), channels=3, batch=4),
    Form("2D, elongated", (256, 96), batch=4),
)


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors that operators have made and that still exist; ``peak`` is the most at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._tensors: dict[int, int] = {}  # by memory: tensors that use it
        self._bytes = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # noqa: ANN001 - torch's signature
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.count(tensor)
        return result

    def count(self, tensor: Tensor) -> None:
        """Count a tensor until it no longer exists."""
        storage = tensor.untyped_storage()
        memory, size = storage.data_ptr(), storage.nbytes()
        if not size:
            return
        if memory not in self._tensors:
            self._tensors[memory] = 0
            self._bytes += size
            self.peak = max(self.peak, self._bytes)
        self._tensors[memory] += 1
        weakref.finalize(tensor, self._gone, memory, size)

    def _gone(self, memory: int, size: int) -> None:
        self._tensors[memory] -= 1
        if not self._tensors[memory]:
            del self._tensors[memory]
            self._bytes -= size


def pipeline_of(form: Form) -> DividedPipeline:
    """The device's part of nnU-Net's pipeline, which applies each transform always, and to every channel."""
    settings = SimpleNamespace(patch_size=list(form.patch))
    trainer = SimpleNamespace(configuration_manager=settings, print_to_log_file=lambda *_: None)
    rotation, dummy_2d, region, axes = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)
    assert tuple(region) == region_size(form.patch)
    pipeline = nnUNetTrainer.get_training_transforms(
        list(form.patch),
        rotation,
        [[1 / 2**scale] * len(form.patch) for scale in range(3)],
        axes,
        dummy_2d,
        use_mask_for_norm=[True] * form.channels,
        is_cascaded=bool(form.previous),
        foreground_labels=list(form.previous) or [1, 2],
        regions=list(form.regions) or None,
    )
    for transform in pipeline.transforms:
        always(transform)
    return divide(pipeline)


def always(transform: BasicTransform) -> None:
    """Set all probabilities of a transform to 1."""
    for name, value in vars(transform).items():
        if isinstance(value, BasicTransform):
            always(value)
        elif name.startswith(("p_", "apply_probability")) and isinstance(value, float | int) and value:
            setattr(transform, name, 1)


def boxes_of(form: Form, pipeline: DividedPipeline) -> dict[str, Any]:
    """A batch as the workers pass it on, from images of the region's size."""
    region = region_size(form.patch)
    boxes: dict[str, Any] = {part: [] for part in BOX_PARTS} | {"keys": ["case"] * form.batch}
    assert pipeline.draws is not None
    for _ in range(form.batch):
        box = pipeline.draws.draw([0] * len(region), region, region)
        size = tuple(stop - start for start, stop in zip(box.start, box.stop, strict=True))
        boxes["data"].append(torch.randn(form.channels, *size))
        boxes["target"].append(torch.randint(-1, 4, (1 + bool(form.previous), *size), dtype=torch.int16))
        boxes["pad"].append(box.pad)
        boxes["affine"].append(box.affine)
    return boxes


def _copy(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
    """As a device gets a copy: on the CPU, ``to`` would give the tensor itself."""
    return tensor.clone() if args and isinstance(args[0], torch.device) else _TO(tensor, *args, **options)


def measured_bytes(form: Form, turns: int) -> int:
    """The most that a batch needs while it is made, with the one that trains meanwhile, over ``turns`` of them."""
    pipeline, cpu = pipeline_of(form), torch.device("cpu")
    boxes = [boxes_of(form, pipeline) for _ in range(turns)]
    training: Any = None
    with mock.patch.object(Tensor, "to", _copy), LiveTensors() as live:
        for one in boxes:
            training = transformed_batch(pipeline, one, cpu)
    del training
    return live.peak


def bound(form: Form) -> int:
    """The bound for a form."""
    targets = len(form.regions) or 1
    return augmentation_bytes(form.patch, form.batch, form.channels, len(form.previous), targets)


def page(turns: int) -> str:
    """Markdown: a row for each form."""
    rows = [["data", "patch, batch", "channels", "measured MB", "bound MB", "of the bound"]]
    for form in FORMS:
        torch.manual_seed(0)
        np.random.seed(0)
        measured, most = measured_bytes(form, turns), bound(form)
        size = f"{'×'.join(map(str, form.patch))}, {form.batch}"
        channels = f"{form.channels}" + (f" + {len(form.previous)}" if form.previous else "")
        shares = [f"{measured / 1e6:.1f}", f"{most / 1e6:.1f}", f"{measured / most:.0%}"]
        rows.append([form.name, size, channels, *shares])
    large = augmentation_bytes((128, 128, 128), 2, 4, 0, 3) / 1e9
    return f"""# Memory of augmentation on the device

Written by `python -m benchmarks.augmentation_memory` (see `--help`). With `nnUNet_factorizer_augmentation=device`, the
planner adds the bound to the memory of a training step. Here it is compared with all tensors that exist at a time while
a batch is augmented on a CPU and the one before still exists, the largest of {turns} batches of which every sample has
all transforms. What a GPU's libraries need within an operator is not counted; the planner's reserve is for that. It has
**not been measured on a GPU yet**. torch {torch.__version__}.

{markdown_table(rows, right=True)}

Two patches of 128×128×128 with 4 channels and 3 regions need at most {large:.2f} GB.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=6, help="batches of each form (default %(default)s)")
    parser.add_argument("--docs", type=output_folder_or_none, default="docs/measured", help="for the page; empty: none")
    options = parser.parse_args(arguments)
    text = page(options.turns)
    print(text)
    if options.docs:
        write_text_atomically(options.docs / "augmentation_memory.md", text)


if __name__ == "__main__":
    main()
