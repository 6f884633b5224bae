"""Scores to files and back: scores.csv, lesions.csv, and summary.json as nnU-Net writes it, with more in it."""

from __future__ import annotations

from pathlib import Path

from factorizer_nnunet.evaluation.scores import Scores

SUMMARY_FILE, SCORES_FILE, LESIONS_FILE, TABLE_FILE = "summary.json", "scores.csv", "lesions.csv", "scores.md"


def write_scores(scores: Scores, folder: Path) -> None:
    """Write the four files to a new or empty folder, which appears whole."""
    raise NotImplementedError


def read_scores(folder: Path) -> Scores:
    """Read what `write_scores` wrote.

    Raises:
        UserError: files are missing or are not of one evaluation.
    """
    raise NotImplementedError
