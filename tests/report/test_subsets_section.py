"""The section about subsets of channels."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from results_example import Study, add_model, write_study

from factorizer_nnunet.core.file_stamps import stamp_of
from factorizer_nnunet.evaluation.subset_scores import FILE, CaseScores, SubsetScores
from factorizer_nnunet.report import Sources
from factorizer_nnunet.report.results import read_results
from factorizer_nnunet.report.sections_subsets import subsets_section

TRAINER = "nnUNetTrainerFactorizer_channeldrop"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = write_study(tmp_path_factory.mktemp("study"), 5)
    add_model(study, TRAINER, 0.4)
    add_model(study, "nnUNetTrainer", 0.4)
    return study


def section(study: Study, trainer: str) -> str:
    results = read_results([study.model(trainer)], Sources(environment=study.environment))
    group: Any = SimpleNamespace(scored=[SimpleNamespace(result=result) for result in results])
    return subsets_section(group)


def measured(study: Study, fold: int, checkpoint: str, dice: float, mirroring: bool = False) -> Path:
    """Scores of the case of a fold, which lose half without T2."""
    cases = {
        case: CaseScores(
            seconds=1.0,
            dice={
                "T1 + T2": {"front": dice, "back": None},
                "T1": {"front": dice / 2, "back": None},
                "T2": {"front": dice, "back": None},
            },
        )
        for case in study.cases
        if study.fold_of(case) == fold
    }
    file = study.model(TRAINER) / f"fold_{fold}" / FILE
    SubsetScores(checkpoint=checkpoint, mirroring=mirroring, channels=("T1", "T2"), cases=cases).write(file)
    return file


def test_other_models_have_no_section(study: Study) -> None:
    assert section(study, "nnUNetTrainer") == ""


def test_before_it_is_measured_the_section_says_how(study: Study) -> None:
    assert f"factorizer-nnunet channel-subsets -m {study.model(TRAINER)}" in section(study, TRAINER)


def test_the_table_has_the_means_and_drops(study: Study) -> None:
    files = [measured(study, fold, "unknown", 0.6 + fold / 5) for fold in (0, 1)]
    shown = section(study, TRAINER)
    assert "mean over 2 of 5 cases" in shown and "without mirroring" in shown
    rows = re.findall(r"<tr><td>([^<]*)</td>(.*?)</tr>", shown)
    assert [name for name, _ in rows] == ["T1 + T2", "T1", "T2"]
    assert re.findall(r">([\d.]+|–)<", rows[1][1]) == ["35.0", "–", "35.0", "35.0"]
    measured(study, 1, "unknown", 0.8, mirroring=True)
    assert "not trained on it, mirrored only by fold 1. Drop" in section(study, TRAINER)
    measured(study, 0, "unknown", 0.6, mirroring=True)
    assert "not trained on it. Drop" in section(study, TRAINER)

    # Other weights than those that were measured.
    checkpoint = files[1].with_name("checkpoint_final.pth")
    checkpoint.write_bytes(b"weights")
    assert "mean over 1 of 5 cases" in section(study, TRAINER)
    measured(study, 1, stamp_of(checkpoint).sha256, 0.8)
    assert "mean over 2 of 5 cases" in section(study, TRAINER)
    files[0].write_text('{"cases": []}')
    assert f"{FILE} is not as this version writes it" in section(study, TRAINER)
