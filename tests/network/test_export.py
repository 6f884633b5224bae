"""The network as one program without Python: torch.export, and ONNX in onnxruntime, for any batch size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from factorizer_nnunet.network import Factorizer, build_variant
from factorizer_nnunet.network.ops import dispatch

SIZES = [(20, 28), (12, 10, 14)]


@pytest.fixture(autouse=True)
def every_volume_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager networks take large volumes in parts; exported ones must not, or they would fit one size only."""
    for limit in ("MIN_SLAB_VOLUME_BYTES", "MIN_HIDDEN_BYTES"):
        monkeypatch.setattr(dispatch, limit, 0)


def network_and_image(size: tuple[int, ...], **changes: Any) -> tuple[Factorizer, Tensor]:
    torch.manual_seed(0)
    ndim = len(size)
    settings: dict[str, Any] = {"features_per_stage": [16, 32], "strides": [[1] * ndim, [2] * ndim], **changes}
    network = Factorizer(2, 3, **settings)
    return network.eval(), torch.randn(2, 2, *size)


@pytest.mark.parametrize("size", SIZES)
def test_exported_program_equals_the_network(size: tuple) -> None:
    network, x = network_and_image(size)
    program = torch.export.export(network, (x,), dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=8)}})
    with torch.no_grad():
        for batch in (x, x[:1]):
            torch.testing.assert_close(program.module()(batch), network(batch))


def test_published_form_is_exported_too() -> None:
    network, x = build_variant("swin", 2, 3, (16, 16)).eval(), torch.randn(1, 2, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), network(x))


def in_onnxruntime(network: Factorizer, x: Tensor, folder: Path, **options: object) -> Callable[[Tensor], Tensor]:
    """The network, exported with ``x`` as the example, as a function that onnxruntime computes."""
    for module in ("onnx", "onnxscript"):
        pytest.importorskip(module)
    onnxruntime = pytest.importorskip("onnxruntime")
    path = folder / "network.onnx"
    torch.onnx.export(network, (x,), path, dynamo=True, verbose=False, **options)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0])


@pytest.mark.slow
def test_onnx_model_equals_the_network(tmp_path: Path) -> None:
    """In 3D, with one block and two updates: the exporter's time grows with the operations. 2D is in the next test."""
    blocks = {"n_blocks_per_stage": [1, 0], "n_blocks_per_stage_decoder": [0]}
    network, x = network_and_image(SIZES[1], features_per_stage=[8, 16], num_iters=2, **blocks)
    exported = in_onnxruntime(network, x, tmp_path, dynamic_shapes={"x": {0: "batch"}})
    with torch.no_grad():
        for batch in (x, x[:1]):
            torch.testing.assert_close(exported(batch), network(batch), rtol=1e-4, atol=1e-5)


def test_more_than_one_column_needs_an_unoptimised_onnx_model(tmp_path: Path) -> None:
    # The exporter's optimiser takes constants below 1e-8 for 0 and so removes the solvers' ε.
    network = Factorizer(1, 2, features_per_stage=[8], strides=[[1, 1]], rank=2, num_iters=1).eval()
    x = torch.randn(1, 1, 12, 10)
    with torch.no_grad():
        torch.testing.assert_close(in_onnxruntime(network, x, tmp_path, optimize=False)(x), network(x))


@pytest.mark.parametrize("settings", [{"solver": "least_squares"}, {"start": "nndsvd"}])
def test_linear_systems_and_singular_vectors_have_no_onnx_counterpart(settings: dict, tmp_path: Path) -> None:
    network = Factorizer(1, 2, features_per_stage=[8], strides=[[1, 1]], rank=2, num_iters=1, **settings).eval()
    with pytest.raises(torch.onnx.OnnxExporterError, match="_linalg_(solve_ex|svd)"):
        in_onnxruntime(network, torch.randn(1, 1, 8, 8), tmp_path)
