"""The small model that is tuned: planned, preprocessed and trained by the commands a user would give."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from benchmarks.hippocampus import DATASET, run_command
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.nnunet.names import template_plans_name

FOLD, CONFIGURATION = 0, "3d_fullres"
PATCH = [32, 32, 32]  # smaller than the images of about 35 x 50 x 35 voxels, so that the step of the tiles matters
_STAGES = 4
_COMMON = {
    "features_per_stage": [32 * 2**stage for stage in range(_STAGES)],
    "strides": [[1] * 3, *[[2] * 3] * (_STAGES - 1)],
    "kernel_sizes": [[3] * 3] * _STAGES,
    "window_sizes": [[8] * 3, [8] * 3, [8] * 3, [None] * 3],
    "shifts": [0.0, 0.5],
    "num_iters": 5,
    "mlp_ratio": 2.0,
}
# The form of the paper, which the literal algorithm computes, too, and the form that is planned by default.
FORMS = {
    "published": {
        **_COMMON,
        "border": "cyclic",
        "norm": "layer",
        "depthwise": "none",
        "position": "learned",
        "patch_size": PATCH,
    },
    "default": {**_COMMON, "norm": "instance", "depthwise": "entry", "nmf_stages": [False, False, True, True]},
}


def plans_name(form: str) -> str:
    """Of the plans of one of FORMS."""
    return template_plans_name(f"tuned_{form}")


def trained(form: str, data: Path, root: Path, epochs: int, env: Mapping[str, str]) -> Path:
    """The model folder of fold FOLD; what is there already is not done again.

    Args:
        form: a key of FORMS.
        data: Hippocampus in nnU-Net raw layout.
        root: working folder with the folders of ``env``.
        epochs: of 50 iterations.
        env: of the commands.
    """
    logs, raw = root / "logs", root / "raw" / DATASET
    if not raw.exists():
        for kind in ("raw", "preprocessed", "results"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        draft = raw.with_name(raw.name + ".part")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(data, draft, copy_function=shutil.copyfile)
        draft.rename(raw)
    planned = root / f"planned_{form}"
    if not planned.exists():
        template = root / f"tuned_{form}.json"
        content = {
            "source": "benchmarks.tune_inference",
            "channels": None,
            "spacing": [1.0] * 3,
            "patch_size": PATCH,
            "batch_size": 2,
            "arch_kwargs": FORMS[form],
        }
        write_text_atomically(template, json.dumps(content))
        run_command(
            ["factorizer-nnunet", "plan", "-d", "4", "--template", str(template), "-np", "2"], env, logs / "plan.log"
        )
        planned.touch()
    trainer = f"nnUNetTrainerFactorizer_{epochs}epochs_50iters"
    model = root / "results" / DATASET / f"{trainer}__{plans_name(form)}__{CONFIGURATION}"
    if not (model / f"fold_{FOLD}" / "validation" / "summary.json").exists():
        command = ["nnUNetv2_train", "4", CONFIGURATION, str(FOLD), "-tr", trainer, "-p", plans_name(form)]
        run_command([*command, "-device", "cpu", "--c"], env, logs / f"train_{form}.log")
    return model
