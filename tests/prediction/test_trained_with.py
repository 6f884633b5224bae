"""A model whose files were changed since its training is refused where its predictions would be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import run_predict

from factorizer_nnunet.core.errors import UserError


def settings(plans: dict[str, Any]) -> dict[str, Any]:
    return plans["configurations"]["3d_fullres"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("plans.json", lambda c: settings(c).update(spacing=[3.0, 2.0, 2.0]), r"spacing was \[3.0, 2.0, 1.0\], now"),
        (
            "plans.json",
            lambda c: settings(c).update(normalization_schemes=["NoNormalization"] * 2),
            'normalization_schemes was .*, now it is ."NoNormalization"',
        ),
        (
            "plans.json",
            lambda c: c.update(transpose_forward=[1, 0, 2], transpose_backward=[1, 0, 2]),
            "transpose_forward",
        ),
        (
            "plans.json",
            lambda c: c.update(foreground_intensity_properties_per_channel={"0": {"mean": 1.0}, "1": {}}),
            "foreground_intensity_properties_per_channel.0.mean was null, now it is 1.0",
        ),
        (
            "plans.json",
            lambda c: settings(c)["architecture"]["arch_kwargs"].update(nmf_output="add"),
            "architecture.arch_kwargs.nmf_output was .gate., now it is .add.",
        ),
        (
            "dataset.json",
            lambda c: c.update(labels={"background": 0, "rim": 2, "core": 1}),
            "labels.rim was 1, now",
        ),
        (
            "dataset.json",
            lambda c: c.update(channel_names={"0": "T2", "1": "T1"}),
            'channel_names.0 was "T1", now',
        ),
    ],
)
def test_a_change_that_makes_predictions_wrong_is_refused(
    root: Path, model: Path, name: str, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    file = model / name
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"{file} was changed since .*checkpoint_final.pth was trained: {message}"):
        run_predict(root, model)
    assert not (root / "out").exists()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("plans.json", lambda c: settings(c).update(patch_size=[8, 16, 32])),
        ("plans.json", lambda c: settings(c)["resampling_fn_probabilities_kwargs"].update(order=0)),
        ("dataset.json", lambda c: c.update(labels={"background": 0, "edge": 1, "core": 2})),
        ("dataset.json", lambda c: c.update(channel_names={"0": "T1w", "1": "T2"}, numTraining=9)),
    ],
)
def test_other_changes_are_the_users(
    root: Path, model: Path, name: str, change: Callable[[dict[str, Any]], None]
) -> None:
    content = json.loads((model / name).read_text())
    change(content)
    (model / name).write_text(json.dumps(content))
    assert not run_predict(root, model, use_mirroring=False).failed
