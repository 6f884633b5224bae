"""Whatever a run finds in its way, nothing of the user's is removed, inside or outside its folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from killed_processes import left_draft
from running_example import TEST_CASES, example_settings, paths_of
from test_fake_runs import SLOTS, summary_of

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_BEST
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.running.request import read_request
from factorizer_nnunet.running.run import run_here
from factorizer_nnunet.running.status import read_status


def test_a_checkpoint_that_cannot_be_read_fails_its_fold_alone_and_stays(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path, prediction=None)
    run_here(settings, SLOTS)
    fold = paths_of(settings).fold(settings.models[0], 1)
    final = fold.checkpoint()
    final.rename(fold.path / "elsewhere")
    final.symlink_to(final)  # reading it fails with "too many levels of symbolic links", for root, too
    assert not run_here(settings, SLOTS)
    failed = {step["name"]: step["why"] for step in summary_of(settings)["steps"] if step["state"] == "failed"}
    assert list(failed) == [f"train.{settings.models[0].folder}.fold_1"]
    assert f"cannot read {final}" in failed[f"train.{settings.models[0].folder}.fold_1"]
    assert final.is_symlink() and (fold.path / "elsewhere").exists()
    line = next(line for line in read_status(settings) if line.state == "failed")
    assert "left as it is" in line.detail
    final.unlink()
    (fold.path / "elsewhere").rename(final)
    assert run_here(settings, SLOTS)


def test_half_a_checkpoint_is_renamed_with_a_line(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = example_settings(tmp_path, folds=(0,), prediction=None)
    fold = paths_of(settings).fold(settings.models[0], 0)
    fold.path.mkdir(parents=True)
    best = fold.checkpoint(CHECKPOINT_BEST)
    best.write_bytes(b"PK half")
    assert run_here(settings, SLOTS)
    assert best.with_name(f"{best.name}.incomplete-1").read_bytes() == b"PK half"
    assert f"{best} is incomplete and renamed to {best.name}.incomplete-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("data_identifier", "../../victim"),
        ("data_identifier", "/tmp"),
        ("next_stage", ["../x"]),
        ("previous_stage", "a/b"),
    ],
)
def test_plans_that_lead_outside_are_refused(tmp_path: Path, programs: Path, key: str, name: object) -> None:
    settings = example_settings(tmp_path, prediction=None)
    run_here(settings, SLOTS)
    victim = tmp_path / "victim" / "file"
    victim.parent.mkdir()
    victim.touch()
    plans = paths_of(settings).plans(settings.models[0].plans)
    content = json.loads(plans.read_text())
    content["configurations"]["2d"][key] = name
    plans.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{key} of 2d in {plans}"):
        run_here(settings, SLOTS)
    assert victim.exists()


@pytest.mark.parametrize(("key", "name"), [("plans_name", "Other"), ("dataset_name", "Dataset007_Other")])
def test_plans_that_would_be_trained_under_another_name_are_refused(
    tmp_path: Path, programs: Path, key: str, name: str
) -> None:
    settings = example_settings(tmp_path, prediction=None)
    run_here(settings, SLOTS)
    plans = paths_of(settings).plans(settings.models[0].plans)
    plans.write_text(json.dumps({**json.loads(plans.read_text()), key: name}))
    with pytest.raises(UserError, match=f"{key} in {plans} is '{name}' instead of"):
        run_here(settings, SLOTS)


def test_names_of_models_are_plain(tmp_path: Path, programs: Path) -> None:
    for parts in (("..", "a", "2d"), ("a", "../b", "2d"), ("a", "b", "")):
        with pytest.raises(UserError, match="of a model"):
            ModelName(*parts)
    settings = example_settings(tmp_path, prediction=None)
    run_here(settings, SLOTS)
    request = paths_of(settings).request
    for key, value in (("dataset", "../x"), ("models", [{"trainer": "../..", "plans": "p", "configuration": "2d"}])):
        request.write_text(json.dumps({**json.loads(request.read_text()), key: value}))
        with pytest.raises(UserError, match="separator"):
            read_request(settings.paths.request)


def test_a_choice_of_models_that_were_not_considered_is_refused(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path)
    run_here(settings, SLOTS)
    best = paths_of(settings).best_configuration
    content = json.loads(best.read_text())
    content["best_model_or_ensemble"]["selected_model_or_models"][0]["plans_identifier"] = "Elsewhere"
    best.write_text(json.dumps(content))
    assert not run_here(settings, SLOTS)
    assert (tmp_path / "out" / f"{TEST_CASES[0]}.nii.gz").exists()


def test_drafts_of_a_killed_run_are_removed_by_the_next(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path)
    drafts = [left_draft(tmp_path / "out"), left_draft(paths_of(settings).summary.with_suffix(".json"))]
    assert run_here(settings, SLOTS)
    assert not any(draft.exists() for draft in drafts)
