"""The model card: valid YAML for the Hub, filled from the model, and honest about what nobody said or measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_models import DATASET, write_model

from factorizer_nnunet import cli

yaml = pytest.importorskip("yaml")


def card_of(model: Path, out: Path, *options: str) -> tuple[dict[str, Any], str]:
    """The front matter and the text."""
    assert cli.main(["export", "-m", str(model), "-o", str(out), *options]) == 0
    _, front, text = (out / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


def write_scores(fold: Path, *dices: tuple[float, float]) -> None:
    cases = [{"metrics": {"1": {"Dice": rim}, "2": {"Dice": core}}} for rim, core in dices]
    (fold / "validation").mkdir()
    (fold / "validation" / "summary.json").write_text(json.dumps({"metric_per_case": cases}))


def test_the_card_is_filled_from_the_model(root: Path) -> None:
    model = write_model(root, folds=2)
    (model / "dataset.json").write_text(json.dumps({**DATASET, "licence": "CC BY-SA 4.0", "reference": "a paper"}))
    write_scores(model / "fold_0", (0.5, 0.75), (0.7, float("nan")))
    write_scores(model / "fold_1", (0.9, 0.25))
    (root / "test").mkdir()
    (root / "test" / "summary.json").write_text(
        json.dumps({"metric_per_case": [{"metrics": {"1": {"Dice": 1.0}, "2": {"Dice": 0.0}}}]})
    )
    options = ["--license", "cc-by-sa-4.0", "--author", "Ä. Author", 'B: "Other"', "--contact", "a@b.org"]
    options += [
        "--title",
        "Rims: a #1 model",
        "--limitations",
        "Fails in children.",
        "--test-scores",
        str(root / "test"),
    ]
    front, text = card_of(model, root / "exported", *options)
    assert (front["license"], front["library_name"]) == ("cc-by-sa-4.0", "factorizer-nnunet")
    assert front["pipeline_tag"] == "image-segmentation" and {"medical-imaging", "3d"} <= set(front["tags"])
    (entry,) = front["model-index"]
    own, given = ({m["name"]: m["value"] for m in result["metrics"]} for result in entry["results"])
    assert entry["name"] == "Rims: a #1 model"
    assert own == {"Dice of rim, 3 cases": 0.7, "Dice of core, 2 cases": 0.5}
    assert given == {"Dice of rim, 1 case": 1.0, "Dice of core, 1 case": 0.0}
    for words in (
        "# Rims: a #1 model",
        "0, 1; their outputs are averaged",
        "the scores above, as numbers",
        'Ä. Author, B: "Other"',
        "a@b.org",
        "Fails in children.",
        "Not given by the authors.",  # the intended use
        "not a medical device",
        "_0001.nii.gz",
        "CC BY-SA 4.0",
        "a paper",
        "3 × 2 × 1 mm",
        "| core      | 0.5000    | 2 of 3",
    ):
        assert words in text, words


def test_what_was_not_measured_or_said_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    front, text = card_of(write_model(root), root / "exported")
    assert front["license"] == "unknown" and "model-index" not in front
    assert "Not measured" in text and "No licence was given" in text and "averaged" not in text
    out = capsys.readouterr().out
    assert "the card says more with --license, --author" in out and "no scores" in out
    assert "folds that are not trained are not in it: 1, 2, 3, 4" in out


def test_scores_of_a_fold_that_saw_all_cases_are_left_out(root: Path) -> None:
    model = write_model(root)
    (model / "fold_0").rename(model / "fold_all")
    write_scores(model / "fold_all", (1.0, 1.0))
    front, text = card_of(model, root / "exported")
    assert "model-index" not in front and "Not measured" in text


def test_scores_of_the_validation_are_those_of_the_final_checkpoint(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fold = write_model(root) / "fold_0"
    write_scores(fold, (0.5, 0.7))
    shutil.copy(fold / "checkpoint_final.pth", fold / "checkpoint_best.pth")
    front, text = card_of(fold.parent, root / "exported", "-chk", "checkpoint_best.pth")
    assert "model-index" not in front and not (root / "exported" / "scores.json").exists()
    for said in (text, capsys.readouterr().out):
        assert "those of the validation are of checkpoint_final.pth, not of checkpoint_best.pth" in said


def test_a_licence_of_its_own(root: Path) -> None:
    (root / "terms.txt").write_text("Ask first.")
    front, text = card_of(
        write_model(root), root / "exported", "--license", "other", "--license-file", str(root / "terms.txt")
    )
    assert (front["license"], front["license_link"]) == ("other", "LICENSE")
    assert (root / "exported" / "LICENSE").read_text() == "Ask first." and "see LICENSE" in text
