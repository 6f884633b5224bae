"""The memory model: what it must obey, and what torch's CUDA autocast really keeps."""

from __future__ import annotations

import json
import math
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from factorizer_nnunet.network import Factorizer, FactorizerConfig
from factorizer_nnunet.network.ops.dispatch import KERNELS_VARIABLE
from factorizer_nnunet.planning.activation_memory import HALF, PRECISIONS
from factorizer_nnunet.planning.memory import estimate, is_modelled, layer_groups, with_reserve

CASES_FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "memory_cases.json"  # benchmarks.memory_model's, too
CASES = [SimpleNamespace(**case) for case in json.loads(CASES_FILE.read_text())]
BLOCK_CASES = [c for c in CASES if not c.name.startswith("published") and not c.arch_kwargs.get("checkpointing")]
BLOCK_CASES += [  # forms that ``benchmarks.memory_model`` does not measure
    SimpleNamespace(**{**vars(CASES[0]), "name": str(form), "arch_kwargs": {**CASES[0].arch_kwargs, **form}})
    for form in ({"nmf_output": "gate"}, {"n_conv_per_stage": [1, 2, 3, 2]})
]
THREE_STAGES = {"features_per_stage": [32, 64, 128], "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]}


class LiveBytes(TorchDispatchMode):
    """Adds up the bytes of all tensors that are alive among those made within."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


def nnunet_loss(resolutions: int) -> torch.nn.Module:
    """The loss with deep supervision that nnU-Net's trainer builds for plain labels."""
    plain = SimpleNamespace(
        label_manager=SimpleNamespace(has_regions=False, ignore_label=None),
        configuration_manager=SimpleNamespace(batch_dice=False),
        is_ddp=False,
        enable_deep_supervision=True,
        _get_deep_supervision_scales=lambda: [1] * resolutions,
        _do_i_compile=lambda: False,
    )
    return nnUNetTrainer._build_loss(plain)


def kept_by_cuda(case: SimpleNamespace) -> int:
    """Bytes that forward pass and loss leave for the backward pass, on CUDA tensors without memory."""
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        with torch.device("cuda"):
            network = Factorizer(case.channels, case.classes, **case.arch_kwargs, deep_supervision=True)
            image = torch.rand(case.batch_size, case.channels, *case.patch_size)
            sizes = network.config.stage_sizes(case.patch_size)[: max(1, network.config.num_stages - 1)]
            targets = [torch.zeros((case.batch_size, 1, *size), dtype=torch.int16) for size in sizes]
        before = live.now
        was_on, was_dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        torch.set_autocast_enabled("cuda", True)  # torch.autocast refuses where there is no GPU
        torch.set_autocast_dtype("cuda", torch.float16)
        torch.autocast_increment_nesting()
        try:
            outputs = network(image)
            loss = nnunet_loss(len(targets))(outputs, targets)
            kept = live.now - before
        finally:
            if torch.autocast_decrement_nesting() == 0:
                torch.clear_autocast_cache()
            torch.set_autocast_enabled("cuda", was_on)
            torch.set_autocast_dtype("cuda", was_dtype)
        del outputs, loss
    return kept


@pytest.mark.parametrize("case", BLOCK_CASES, ids=lambda case: case.name)
def test_the_model_knows_what_cuda_autocast_keeps(case: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KERNELS_VARIABLE, "0")  # a plan also fits a GPU without the kernels
    groups = layer_groups(
        FactorizerConfig.from_settings(case.arch_kwargs),
        tuple(case.patch_size),
        case.channels,
        case.classes,
        PRECISIONS["cuda"],
    )
    modelled = sum(case.batch_size * group.need.kept + HALF * group.parameters for group in groups)
    assert modelled == pytest.approx(kept_by_cuda(case), rel=0.05)


@given(
    batch=st.integers(2, 40),
    edges=st.lists(st.sampled_from([16, 32, 48, 64]), min_size=3, max_size=3),
    channels=st.integers(1, 8),
    classes=st.integers(1, 100),
)
@settings(deadline=None, max_examples=25)
def test_more_of_anything_needs_more(batch: int, edges: list[int], channels: int, classes: int) -> None:
    config = FactorizerConfig.from_settings(THREE_STAGES)
    base = estimate(config, edges, batch, channels, classes)
    assert estimate(config, edges, batch + 1, channels, classes).total > base.total
    assert estimate(config, [edges[0] + 16, *edges[1:]], batch, channels, classes).total > base.total
    assert estimate(config, edges, batch, channels + 1, classes).total > base.total
    assert estimate(config, edges, batch, channels, classes + 1).total > base.total


def test_parameters_count_with_gradients_and_moments() -> None:
    network = Factorizer(1, 2, **THREE_STAGES)
    parameters = sum(p.numel() for p in network.parameters())
    needed = estimate(network.config, [16, 16, 16], 2, 1, 2)
    assert needed.parameters == (4 + 4 + 8 + 2) * parameters
    assert needed.step > 16 * parameters


def test_checkpointing_and_fewer_nmf_stages_need_less() -> None:
    settings = FactorizerConfig.from_settings
    usual = estimate(settings(THREE_STAGES), [32] * 3, 2, 1, 2).total
    assert estimate(settings({**THREE_STAGES, "checkpointing": True}), [32] * 3, 2, 1, 2).total < usual
    without = {**THREE_STAGES, "nmf_stages": [False, False, True]}
    assert estimate(settings(without), [32] * 3, 2, 1, 2).total < usual


def test_what_goes_through_plain_iterations_is_not_modelled() -> None:
    config = FactorizerConfig.from_settings({**THREE_STAGES, "rank": 2})
    assert not is_modelled(config)
    with pytest.raises(ValueError, match="no memory model for rank=2 and start=constant"):
        estimate(config, [32] * 3, 2, 1, 2)


def test_the_reserve_leaves_room_for_cuda_and_its_allocator() -> None:
    assert with_reserve(0) == 0.5e9
    assert math.isclose(with_reserve(9e9), 10.5e9)
