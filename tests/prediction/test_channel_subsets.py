"""All subsets of channels, predicted with untrained models: the command, the benchmark, the means."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny_models import FACTORIZER, write_model
from validation_example import VALIDATED, write_validation

from factorizer_nnunet.channel_subsets import measure
from factorizer_nnunet.cli import main
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.subset_scores import (
    FILE,
    CaseScores,
    SubsetScores,
    cells,
    heads,
    read_subset_scores,
    subset_rows,
    subsets,
)
from factorizer_nnunet.tuning.cases import ValidationCase, ValidationCases

ROOT = Path(__file__).resolve().parents[2]
DROPS = f"{FACTORIZER}_channeldrop"


def test_the_command_says_how_much_it_is_measures_and_continues(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(root, DROPS)
    write_validation(root)
    arguments = ["channel-subsets", "-m", str(model), "-f", "0", "-device", "cpu"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert f"{len(VALIDATED)} cases × 3 subsets; {3 * len(VALIDATED)} predictions left" in first
    assert "time: about" in first
    file = model / "fold_0" / FILE
    scores = read_subset_scores(file)
    assert scores is not None and set(scores.cases) == set(VALIDATED)
    dice = scores.cases[VALIDATED[0]].dice
    assert list(dice) == ["T1 + T2", "T1", "T2"] and dice["T1"] != dice["T1 + T2"]

    # A killed run had predicted all but one case.
    left, *kept = VALIDATED
    SubsetScores(**{**vars(scores), "cases": {name: scores.cases[name] for name in kept}}).write(file)
    predicted: list[str] = []
    load = ValidationCases.load

    def noted(self: ValidationCases, name: str) -> ValidationCase:
        predicted.append(name)
        return load(self, name)

    monkeypatch.setattr(ValidationCases, "load", noted)
    assert main(arguments) == 0
    assert predicted == [left]
    table = first.split("compared with all channels")[1]
    assert capsys.readouterr().out.endswith(table)


def test_other_weights_are_measured_again(root: Path) -> None:
    model = write_model(root, DROPS)
    write_validation(root)
    before = measure.fold_work(model, "0", mirroring=False)
    case = CaseScores(seconds=1.0, dice=dict.fromkeys(subsets(("T1", "T2")), {"tumor": 0.5}))
    SubsetScores(**{**vars(before.scores), "cases": dict.fromkeys(VALIDATED, case)}).write(before.file)
    assert not measure.fold_work(model, "0", mirroring=False).left
    other = SubsetScores(**{**vars(before.scores), "checkpoint": "0" * 64, "cases": dict.fromkeys(VALIDATED, case)})
    other.write(before.file)
    for mirroring in (False, True):
        assert len(measure.fold_work(model, "0", mirroring).left) == len(VALIDATED)


@pytest.mark.parametrize("mirroring", [False, True])
def test_a_measurement_of_the_other_kind_is_not_overwritten(root: Path, mirroring: bool) -> None:
    model = write_model(root, DROPS)
    write_validation(root)
    before = measure.fold_work(model, "0", mirroring)
    before.scores.write(before.file)
    advice = "was measured with mirroring .*add" if mirroring else "was measured without mirroring .*leave out"
    with pytest.raises(UserError, match=f"{advice} --mirroring"):
        measure.measure_subsets(measure.SubsetRequest(model=model, device="cpu", mirroring=not mirroring))
    assert read_subset_scores(before.file) == before.scores


def test_other_models_are_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(root, FACTORIZER)
    write_validation(root)
    assert main(["channel-subsets", "-m", str(model), "-f", "0", "-device", "cpu"]) == 2
    message = capsys.readouterr().err
    assert "was not trained to predict without some channels" in message and f"-tr {DROPS}" in message
    assert not (model / "fold_0" / FILE).exists()


@pytest.mark.parametrize(
    "content", ['{"cases": {}}', '{"cases": {"a": {"seconds": 1, "dice": {}}}, "channels": ["T1"]}', '{"cases": []}']
)
def test_a_file_of_another_form_is_reported(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(UserError, match="is not as this version writes it"):
        read_subset_scores(tmp_path / FILE)


def test_the_benchmark_compares_with_a_model_given_zeros(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import channel_subsets

    drops, ordinary = write_model(root, DROPS), write_model(root, FACTORIZER)
    write_validation(root)
    docs = root / "docs"
    monkeypatch.setattr(
        sys, "argv", ["channel_subsets", f"usual={ordinary}", str(drops), "-f", "0", "--docs", str(docs)]
    )
    channel_subsets.main()
    results = json.loads((docs / "channel_subsets.json").read_text())
    models = results["models"]
    means = {name: {row["channels"]: row["mean"] for row in one["subsets"]} for name, one in models.items()}
    # Equal weights: only what they see without a channel differs.
    assert means[drops.name]["T1 + T2"] == means["usual"]["T1 + T2"]
    assert means[drops.name]["T1"] != means["usual"]["T1"]
    changes = {group: found["mean"] for group, found in models[drops.name]["differences"].items()}
    assert changes["all channels"] == 0 != changes["mean without one channel"]
    page = (docs / "channel_subsets.md").read_text()
    assert f"* usual: `{ordinary.name}`" in page and "| mean without one channel |" in page


def test_the_means_of_a_table() -> None:
    assert subsets(["a", "b", "c"])["a + c"] == {1}
    assert list(subsets(["a", "b", "c"]))[0] == "a + b + c" and len(subsets(["a", "b", "c", "d"])) == 15
    full = {"core": 0.5, "rim": 1.0}, {"core": None, "rim": 0.5}
    half = {"core": 0.25, "rim": 0.5}, {"core": None, "rim": 0.25}
    cases = [CaseScores(seconds=1.0, dice={"a + b": f, "a": h, "b": h}) for f, h in zip(full, half, strict=True)]
    rows = subset_rows(("a", "b"), cases)
    assert heads(rows) == ["channels", "core", "rim", "mean", "drop"]
    assert cells(rows[0]) == ["a + b", "50.0", "75.0", "62.5", "0.0"]
    assert cells(rows[1]) == ["a", "25.0", "37.5", "31.2", "31.2"]
