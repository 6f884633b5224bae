"""Damaged inputs of evaluate and report: an exit status and a message, whatever they contain."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from fuzzing import CASE_NAMES, answer, damaged_json, damaged_nifti, files_below, seed_and_rounds

SEED, ROUNDS = seed_and_rounds(0, 60)
GROUPS, SHAPE = 4, (6, 5, 4)
LABELS = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "edema": 1, "necrosis": 2, "enhancing": 3},
          "numTraining": 2, "file_ending": ".nii"}  # fmt: skip


def volume(rng: np.random.Generator, dtype: str = "uint8") -> bytes:
    labels = rng.integers(0, 4, SHAPE).astype(dtype)
    return nibabel.Nifti1Image(labels, np.diag([0.5, 0.8, 3, 1])).to_bytes()


@pytest.fixture
def folders(tmp_path: Path) -> Callable[[np.random.Generator], tuple[Path, Path]]:
    """Writes two sound cases, a prediction and a reference each, with a dataset.json."""

    def write(rng: np.random.Generator) -> tuple[Path, Path]:
        shutil.rmtree(tmp_path / "work", ignore_errors=True)
        predictions, references = tmp_path / "work" / "predictions", tmp_path / "work" / "raw" / "labelsTr"
        for folder in (predictions, references):
            folder.mkdir(parents=True)
            for case in ("a", "b"):
                (folder / f"{case}.nii").write_bytes(volume(rng))
        (predictions / "dataset.json").write_text(json.dumps(LABELS))
        return predictions, references

    return write


@pytest.mark.parametrize("seed", range(SEED, SEED + GROUPS))
def test_evaluate_and_report_answer_damaged_volumes_and_names(
    folders: Callable[[np.random.Generator], tuple[Path, Path]], tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng([1, seed])
    statuses = []
    for number in range(ROUNDS // GROUPS):
        predictions, references = folders(rng)
        victim = (predictions, references)[number % 2] / "a.nii"
        kind = ("uint8", "float64", "int16", "float32")[number % 4]
        if number % 5:
            victim.write_bytes(damaged_nifti(rng, volume(rng, kind)))
        else:
            name = CASE_NAMES[int(rng.integers(len(CASE_NAMES)))]
            for folder in (predictions, references):
                (folder / "a.nii").rename(folder / f"{name}.nii")
        before, out = files_below(tmp_path), tmp_path / "work" / "out"
        scheme = ("none", "brats2021", "brats2024-gli", "isles2022")[int(rng.integers(4))]
        statuses.append(
            answer(["evaluate", "-p", predictions, "-r", references, "-o", out, "-np", 1, "--scheme", scheme])
        )
        assert {k: v for k, v in files_below(tmp_path, out).items() if "unfinished" not in k} == before
        if number % 6 == 0:
            page = tmp_path / "work" / "page.html"
            status = answer(["report", predictions, "--references", references, "-o", page])
            assert status == 2 or "<!--<script>" not in page.read_text().split("<body>")[1]
            assert status in (0, 2)
    assert set(statuses) == {0, 2}


@pytest.mark.parametrize("seed", range(SEED, SEED + GROUPS))
def test_evaluate_and_report_answer_a_damaged_dataset_json(
    folders: Callable[[np.random.Generator], tuple[Path, Path]], tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng([2, seed])
    statuses = []
    for number in range(ROUNDS // GROUPS):
        predictions, references = folders(rng)
        (predictions / "dataset.json").write_bytes(damaged_json(rng, LABELS))
        if number % 4 == 0:
            (references.parent / "dataset.json").write_bytes(damaged_json(rng, LABELS))
        before, out = files_below(tmp_path), tmp_path / "work" / "out"
        scheme = ("none", "brats2021", "brats2023-gli", "isles2024", "brats2024-men-rt")[int(rng.integers(5))]
        statuses.append(
            answer(["evaluate", "-p", predictions, "-r", references, "-o", out, "-np", 1, "--scheme", scheme])
        )
        assert files_below(tmp_path, out).keys() - before.keys() == set()
        if number % 5 == 0:
            page = tmp_path / "work" / "page.html"
            assert answer(["report", predictions, "--references", references, "-o", page]) in (0, 2)
    assert set(statuses) == {0, 2}


def test_report_answers_damaged_summaries_and_scores(
    folders: Callable[[np.random.Generator], tuple[Path, Path]], tmp_path: Path
) -> None:
    rng = np.random.default_rng([3, SEED])
    predictions, references = folders(rng)
    page = tmp_path / "work" / "page.html"
    command = ["report", predictions, "--references", references, "-o", page]
    entries = [{"reference_file": str(references / f"{c}.nii"), "prediction_file": str(predictions / f"{c}.nii"),
                "metrics": {}} for c in ("a", "b")]  # fmt: skip
    summary = {"metric_per_case": entries, "mean": {}, "foreground_mean": {}}
    assert answer(command) == 0
    (scores,) = (tmp_path / "work" / "page_scores").iterdir()
    written = json.loads((scores / "scores" / "summary.json").read_text())
    for number in range(ROUNDS * 2 // 5):
        (predictions / "summary.json").write_bytes(damaged_json(rng, summary))
        if number % 2:
            (scores / "scores" / "summary.json").write_bytes(damaged_json(rng, written))
        assert answer(command) in (0, 2)
        if number % 2:
            (scores / "scores" / "summary.json").write_text(json.dumps(written))
