"""Damaged volumes and conversion reports: an exit status and a message, whatever they contain."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from fuzzing import answer, damaged_json, damaged_nifti, files_below, seed_and_rounds
from nnunet_folders import use_folders_below
from trees import build_tree


def test_convert_and_to_challenge_answer_damaged_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed, rounds = seed_and_rounds(4, 40)
    rng = np.random.default_rng(seed)
    use_folders_below(tmp_path, monkeypatch)
    source = tmp_path / "source"
    build_tree("brats2023-gli", source)
    raw = tmp_path / "nnUNet_raw"
    assert answer(["convert", "brats2023-gli", source, "-d", 1, "--jobs", 1]) == 0
    (data_set,) = raw.iterdir()
    report = json.loads((data_set / "conversion_report.json").read_text())
    labels = data_set / "labelsTr"
    for number in range(rounds):
        (data_set / "conversion_report.json").write_bytes(damaged_json(rng, report))
        before, out = files_below(tmp_path), tmp_path / f"out{number}"
        assert answer(["to-challenge", "brats2023-gli", labels, out]) in (0, 2)
        assert files_below(tmp_path, out) == before
    volumes = sorted(source.rglob("*.nii.gz"))
    for _ in range(rounds * 5 // 8):
        victim = volumes[int(rng.integers(len(volumes)))]
        content = victim.read_bytes()
        victim.write_bytes(damaged_nifti(rng, nibabel.load(victim).to_bytes()))
        assert answer(["convert", "brats2023-gli", source, "--dry-run", "--jobs", 1]) in (0, 1, 2)
        victim.write_bytes(content)
