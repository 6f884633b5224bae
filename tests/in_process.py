"""nnU-Net's fingerprint and preprocessing in threads of this process, and quickly."""

from __future__ import annotations

import multiprocessing
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import pytest
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.utilities import utils as nnunet_utilities


def use_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nnU-Net's pools be pools of threads, since processes take seconds to start.

    The fingerprint also draws fewer voxels: of few cases, nnU-Net draws some of them millions of times.
    """
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: SimpleNamespace(Pool=ThreadPool))
    monkeypatch.setattr(nnunet_utilities, "Pool", ThreadPool)  # forked, it can wait for locks that other threads held
    original = DatasetFingerprintExtractor.__init__

    def with_few_voxels(self: DatasetFingerprintExtractor, *args: object, **options: object) -> None:
        original(self, *args, **options)
        self.num_foreground_voxels_for_intensitystats = 1e4

    monkeypatch.setattr(DatasetFingerprintExtractor, "__init__", with_few_voxels)
