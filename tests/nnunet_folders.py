"""nnU-Net's folders for a test."""

from __future__ import annotations

from pathlib import Path

import pytest
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

from factorizer_nnunet.nnunet.environment import create_folders, environment_variables


def use_folders_below(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make nnU-Net's three folders below ``root`` and let the environment name them, and the folder of our trainer."""
    create_folders(root)
    for variable, value in environment_variables(root, {}).items():
        monkeypatch.setenv(variable, value)


def write_fingerprint(dataset_id: int) -> None:
    """nnU-Net's fingerprint of few samples: it draws 10⁸ voxels from all cases, so that few cases take minutes."""
    extractor = DatasetFingerprintExtractor(dataset_id, num_processes=1)
    extractor.num_foreground_voxels_for_intensitystats = 1e4
    extractor.run(overwrite_existing=False)
