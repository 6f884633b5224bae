"""The files of an evaluation: they can be read back, also by nnU-Net, and appear only when complete."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder, load_summary_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from score_example import DATASET, DATASET_JSON, write, write_folders

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation import files
from factorizer_nnunet.evaluation.evaluate import evaluate_folder
from factorizer_nnunet.evaluation.files import read_scores, write_scores
from factorizer_nnunet.evaluation.schemes import scheme_named
from factorizer_nnunet.evaluation.scores import Scores


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three cases; of the first both masks are empty."""
    predictions, references = write_folders(tmp_path)
    for folder in (predictions, references):
        write(folder / "case_0.nii.gz", np.zeros((12, 10, 8), np.uint8))
    return predictions, references


@pytest.fixture
def scores(folders: tuple[Path, Path]) -> Scores:
    return evaluate_folder(*folders, DATASET)


def test_what_is_written_reads_back(scores: Scores, tmp_path: Path) -> None:
    write_scores(scores, tmp_path / "a" / "out")
    found = read_scores(tmp_path / "a" / "out")
    assert replace(found, table={}) == replace(scores, table={})
    assert list(found.table) == list(scores.table) and repr(found.table) == repr(scores.table)


def test_the_csv_is_tidy(scores: Scores, tmp_path: Path) -> None:
    write_scores(scores, tmp_path / "out")
    with (tmp_path / "out" / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * 2 * len(scores.metrics)
    assert rows[0] == {"case": "case_0", "region": "whole", "metric": "dice", "unit": "", "value": ""}
    assert {row["unit"] for row in rows if row["metric"] == "assd"} == {"mm"}
    assert len((tmp_path / "out" / "lesions.csv").read_text().splitlines()) == 1 + len(scores.lesions) == 5


def test_the_table_says_over_how_many_cases(scores: Scores, tmp_path: Path) -> None:
    write_scores(scores, tmp_path / "out")
    text = (tmp_path / "out" / "scores.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| Dice"))
    assert line.count("(2 of 3)") == 2
    assert "| hd95        | undefined" in text


def test_summary_is_nnunets_with_more_in_it(scores: Scores, folders: tuple[Path, Path], tmp_path: Path) -> None:
    write_scores(scores, tmp_path / "out")
    ours = load_summary_json(str(tmp_path / "out" / "summary.json"))
    theirs_file = tmp_path / "theirs.json"
    arguments = (str(theirs_file), SimpleITKIO(), ".nii.gz", [(1, 2), (2,)])
    compute_metrics_on_folder(str(folders[1]), str(folders[0]), *arguments, num_processes=1)
    theirs = load_summary_json(str(theirs_file))

    def compare(mine: object, expected: object) -> None:
        if isinstance(expected, dict):
            for key, value in expected.items():
                compare(mine[key], value)
        elif isinstance(expected, list):
            for one, other in zip(mine, expected, strict=True):
                compare(one, other)
        else:
            assert mine == (expected if isinstance(expected, str) else pytest.approx(expected, nan_ok=True))

    compare(ours, theirs)
    assert theirs["mean"][1, 2]["Dice"] > 0 and math.isnan(theirs["metric_per_case"][0]["metrics"][1, 2]["Dice"])


def test_nnunets_values_do_not_depend_on_the_scheme(scores: Scores, folders: tuple[Path, Path]) -> None:
    challenge = evaluate_folder(*folders, DATASET, scheme=replace(scheme_named("brats2021"), regions=None))
    dice, own = (files.summary_json(s)["mean"]["(1, 2)"] for s in (scores, challenge))
    assert dice["Dice"] == own["Dice"] == dice["dice"] < own["dice"]


def test_nothing_is_overwritten_or_left_half(scores: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(files, "markdown", lambda scores: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_scores(scores, out)
    assert not out.exists() and not list(tmp_path.glob(".*"))
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(UserError, match="is not overwritten"):
        write_scores(scores, out)


def test_damaged_results_are_refused(scores: Scores, tmp_path: Path) -> None:
    write_scores(scores, tmp_path / "out")
    csv_file, summary = tmp_path / "out" / "scores.csv", tmp_path / "out" / "summary.json"
    text = csv_file.read_text()
    csv_file.write_text(text.rsplit("\n", 2)[0])
    with pytest.raises(UserError, match="are not from the same evaluation"):
        read_scores(tmp_path / "out")
    csv_file.write_text(text.replace("metric", "what", 1))
    with pytest.raises(UserError, match="has the columns"):
        read_scores(tmp_path / "out")
    csv_file.unlink()
    with pytest.raises(UserError, match="cannot read"):
        read_scores(tmp_path / "out")
    summary.write_text(json.dumps({"mean": {}}))
    with pytest.raises(UserError, match="was written by nnU-Net"):
        read_scores(tmp_path / "out")


def test_command(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders[0] / "dataset.json").write_text(json.dumps(DATASET_JSON))
    argv = ["evaluate", "-p", str(folders[0]), "-r", str(folders[1]), "-np", "1"]
    out = tmp_path / "out"
    assert cli.main([*argv, "-o", str(out), "--tolerances", "0.5", "--empty", "dice:both=1"]) == 0
    printed = capsys.readouterr().out
    assert "Surface Dice at 0.5 mm" in printed and f"3 cases scored, in {out}" in printed
    assert read_scores(out).value("case_0", "whole", "dice") == 1.0
    assert not list(tmp_path.glob(".*"))
    assert cli.main([*argv, "-o", str(out)]) == 2  # it exists
    finite = (["--min-lesion", "nan"], ["--min-lesion", "inf"], ["--min-lesion", "-1"])
    for wrong in (["--match", "2"], ["--match", "x"], ["--dilation", "-1"], *finite, ["--scheme", "x"]):
        assert cli.main([*argv, *wrong, "-o", str(tmp_path / "new")]) == 2
        assert not (tmp_path / "new").exists()
    assert "unknown scheme" in capsys.readouterr().err
    rule = ["--match", "0.5", "--connectivity", "6", "--min-lesion", "3", "--dilation", "1"]
    assert cli.main([*argv, *rule, "-o", str(tmp_path / "new")]) == 0
    lesions = read_scores(tmp_path / "new").settings["lesions"]["whole"]
    assert (lesions["connectivity"], lesions["dilation"], lesions["min_reference_mm3"]) == (6, 1, 3.0)
    assert lesions["min_iou"] == 0.5


@pytest.mark.slow
def test_processes_do_not_change_scores(folders: tuple[Path, Path], scores: Scores) -> None:
    spread = evaluate_folder(*folders, DATASET, num_processes=2)
    assert repr(spread.table) == repr(scores.table)
    assert spread.lesions == scores.lesions
