"""The libraries that the benchmark compares give the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.evaluation import REGIONS, ours, ours_as_brats, synthetic_case, with_surface_distance


def test_the_libraries_measure_the_same() -> None:
    case = synthetic_case(0, (48, 48, 40))
    assert all(np.isin(array, labels).any() for array in case for labels in REGIONS.values())
    found, challenge, expected = (method(*case) for method in (ours, ours_as_brats, with_surface_distance))
    for region, values in expected.items():
        assert {key: found[region][key] for key in values} == pytest.approx(values, abs=1e-6)
        assert challenge[region]["hd95"] == found[region]["hd95"]
