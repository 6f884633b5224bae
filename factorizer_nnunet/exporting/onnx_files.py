"""The networks of a model as ONNX, with the runner that predicts with them, its settings and instructions."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import stamp_of
from factorizer_nnunet.exporting import run_model
from factorizer_nnunet.exporting.runner_settings import runner_settings, unsupported
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.prediction.model import TrainedModel

ONNX_FOLDER = "onnx"
_RUNNER, _README = "run_model.py", "README.md"
_LIBRARIES = ("onnx", "onnxruntime", "onnxscript")
_MOST_BYTES = 2_000_000_000  # of a file of the format, which is a message of protocol buffers
_SAME_LABELS = 0.999  # of the voxels of a random patch


def check_onnx(model: TrainedModel) -> None:
    """Check that the runner can reproduce a model, before anything is written.

    Raises:
        UserError: it cannot, or libraries are missing; all reasons at once.
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--onnx needs {', '.join(missing)}: pip install {' '.join(missing)}")
    reasons = unsupported(model)
    size = sum(weight.numel() * weight.element_size() for weight in model.first.weights.values())
    if size > _MOST_BYTES:
        reasons.append(f"its weights have {size / 1e9:.1f} GB, and a file of ONNX can have 2")
    if reasons:
        raise UserError(
            f"{model.folder} cannot be exported as ONNX, since the runner would not give its labels: "
            f"{'; '.join(reasons)}. Leave out --onnx"
        )


def write_onnx(model: TrainedModel, folder: Path) -> None:
    """Write a network for each fold, compared with the original, and the runner.

    Raises:
        UserError: an operation of the network has no counterpart in ONNX, or onnxruntime computes other labels.
        OSError: a file cannot be written.
    """
    folder.mkdir()
    network = model.network.cpu().eval()
    digests = {}
    for fold, checkpoint in model.folds.items():
        network.load_state_dict(checkpoint.weights)
        file = folder / f"fold_{fold}.onnx"
        _export(network, _example(model), file, str(model.folder))
        _compare(network, _example(model), file, model)
        digests[file.name] = stamp_of(file).sha256
    settings = {**runner_settings(model), "networks": digests}
    (folder / run_model.SETTINGS_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(str(run_model.__file__), folder / _RUNNER)
    (folder / _README).write_text(_instructions(model), encoding="utf-8")


def _example(model: TrainedModel) -> torch.Tensor:
    shape = (1, model.description.num_input_channels, *model.configuration.patch_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _export(network: nn.Module, image: torch.Tensor, file: Path, model: str) -> None:
    # The exporter's optimiser takes constants below 1e-8 for 0 and so removes the ε of solvers with several columns.
    optimize = not (isinstance(network, Factorizer) and network.config.rank > 1)
    try:
        with _quiet():
            torch.onnx.export(
                network,
                (image,),
                file,
                dynamo=True,
                verbose=False,
                external_data=False,
                optimize=optimize,
                input_names=["image"],
                output_names=["logits"],
            )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(
            f"{model} cannot be exported as ONNX: an operation of its network has no counterpart there "
            f"({' '.join(str(error).split())[:300]}). docs/network.md says which settings have none; leave out --onnx"
        ) from error


def _compare(network: nn.Module, image: torch.Tensor, file: Path, model: TrainedModel) -> None:
    (logits,) = run_model.open_network(file).run(None, {"image": image.numpy()})
    with torch.inference_mode():
        expected = network(image).numpy()
    found, wanted = (one > 0 if model.description.labels.has_regions else one.argmax(1) for one in (logits, expected))
    same = float(np.mean(found == wanted))
    if not same >= _SAME_LABELS:
        raise UserError(
            f"{model.folder} cannot be exported as ONNX: onnxruntime gives other labels than the network in "
            f"{1 - same:.2%} of the voxels of a random patch, more than 0.1 %. Leave out --onnx"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress and its remarks on types that it does not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _instructions(model: TrainedModel) -> str:
    channels = "\n".join(
        f"* `CASE_{number:04d}{model.file_ending}`: {name}" for number, name in enumerate(model.dataset.channel_names)
    )
    return f"""# ONNX

The networks for onnxruntime, and a script that predicts with them. It needs no PyTorch and no nnU-Net:

```bash
pip install numpy onnxruntime
python run_model.py -i IMAGES -o OUT
```

`IMAGES` has the files of each case, all channels on one grid:

{channels}

The script resamples and normalises as nnU-Net does, averages folds and mirrored tiles, and writes
`OUT/CASE{model.file_ending}`.
At least 99.9 % of the voxels have the labels of `factorizer-nnunet predict --no-postprocessing`, the rest are ties.
`--no-mirroring` is faster and a little less accurate, `--folds 0` takes one network. Labels are not postprocessed.
"""
