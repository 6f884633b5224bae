"""``run --channel-subsets``: a step for each fold of the models that were trained for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running_example import example_settings, paths_of

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.subset_scores import FILE
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import PLANS, TRAINER
from factorizer_nnunet.running.request import read_request
from factorizer_nnunet.running.run import run_here
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.steps import build_steps
from factorizer_nnunet.running.worker_slots import WorkerSlot

SLOTS = [WorkerSlot("cpu 0"), WorkerSlot("cpu 1")]
DROPS = ModelName(f"{TRAINER}_channeldrop", PLANS, "3d_fullres")
OTHER = ModelName(TRAINER, PLANS, "3d_fullres")


def settings_with(root: Path, *models: ModelName) -> RunSettings:
    return example_settings(root, models=models, channel_subsets=True, prediction=None)


def test_each_fold_is_measured_after_its_training_and_again_after_a_change(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_with(tmp_path, DROPS, OTHER)
    steps = {step.name: step for step in build_steps(settings)}
    names = [f"channel_subsets.{DROPS.folder}.fold_{fold}" for fold in (0, 1)]
    assert [name for name in steps if name.startswith("channel_subsets")] == names
    assert steps[names[0]].after == (f"train.{DROPS.folder}.fold_0",)
    assert run_here(settings, SLOTS)
    assert "channel subsets: about 2 validation cases × 1 subsets" in capsys.readouterr().out
    assert all(steps[name].look().done for name in names)
    assert read_request(settings.paths.request).channel_subsets

    file = paths_of(settings).fold(DROPS, 0).path / FILE
    content = json.loads(file.read_text())
    first = next(iter(content["cases"]))
    del content["cases"][first]
    file.write_text(json.dumps(content))
    state = steps[names[0]].look()
    assert not state.done and state.progress.startswith(f"{len(content['cases'])} of {len(content['cases']) + 1} cases")
    assert run_here(settings, SLOTS) and steps[names[0]].look().done
    file.write_text(json.dumps({**content, "checkpoint": "0" * 64}))
    assert not steps[names[0]].look().done


def test_other_models_are_refused_first(tmp_path: Path, programs: Path) -> None:
    with pytest.raises(UserError, match=f"--channel-subsets needs a model for it.* -tr {TRAINER}_channeldrop"):
        run_here(settings_with(tmp_path, OTHER), SLOTS)
    assert not list((tmp_path / "nnUNet_preprocessed").rglob("*.json"))
