"""Estimates of memory bound what is allocated without being far above, and decide how many processes there are."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tiny_models
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.core.memory import free_memory
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.image_files import ImageCase
from factorizer_nnunet.prediction.description import ModelDescription
from factorizer_nnunet.prediction.memory import PROCESS, CaseMemory, case_memory, processes_within
from factorizer_nnunet.prediction.work import preprocess


def description() -> ModelDescription:
    plans = PlansManager(tiny_models.plans())
    dataset = DatasetJson(tiny_models.DATASET, Path("dataset.json"))
    return ModelDescription(plans, plans.get_configuration("3d_fullres"), dataset)


@pytest.mark.parametrize("spacing", [(3.0, 2.0, 1.0), (2.0, 2.0, 2.0)])
def test_preprocessing_takes_what_is_estimated(tmp_path: Path, spacing: tuple[float, ...]) -> None:
    shape = (60, 80, 100)
    files = tuple(tmp_path / f"a_{channel:04d}.nii.gz" for channel in range(2))
    for file in files:
        image = SimpleITK.GetImageFromArray(np.random.default_rng(0).normal(size=shape).astype(np.float32) + 9)
        image.SetSpacing(spacing[::-1])
        SimpleITK.WriteImage(image, str(file))
    tracemalloc.start()
    try:
        preprocess(ImageCase("a", files), [description()])
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    estimated = case_memory(shape, spacing, description()).reading
    assert 0.5 * estimated < most < 1.1 * estimated


def test_processes_follow_from_the_limit() -> None:
    case = CaseMemory(reading=3 * PROCESS, waiting=PROCESS, predicting=2 * PROCESS, writing=PROCESS)
    assert case.of_processes(0, 0) == 4 * PROCESS
    assert case.of_processes(1, 1) == (1 + 2 + 5 + 3) * PROCESS
    assert processes_within(case, 100 * PROCESS, 3, 2) == (3, 2)
    assert processes_within(case, 12 * PROCESS, 3, 2) == (1, 1)
    assert processes_within(case, 10 * PROCESS, 3, 2) in ((1, 0), (0, 1), (0, 2))
    assert processes_within(case, 0, 3, 2) == (0, 0)


def test_limits_of_control_groups_count(tmp_path: Path) -> None:
    free = free_memory(tmp_path)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 3000000 kB\n")
    assert free_memory(tmp_path) == 3_000_000 << 10 < free
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/job/step\n0::/user\n")
    for folder, limit, usage, left in (
        ("memory/job", "memory.limit_in_bytes", "memory.usage_in_bytes", 2_000_000_000),
        ("user", "memory.max", "memory.current", 1_000_000_000),
    ):
        group = tmp_path / "sys/fs/cgroup" / folder
        group.mkdir(parents=True)
        (group / limit).write_text(f"{left + 300_000}\n")
        (group / usage).write_text("400000\n")
        (group / "memory.stat").write_text("cache 5\ninactive_file 100000\n")
        assert free_memory(tmp_path) == left
    (group / "memory.max").write_text("max\n")
    assert free_memory(tmp_path) == 2_000_000_000


def test_a_case_that_cannot_fit_is_refused_with_what_it_needs(root: Path, model: Path) -> None:
    outcome = tiny_models.run_predict(root, model, memory=0.50001, use_mirroring=False)
    assert list(outcome.failed) == list(tiny_models.CASES)
    assert "it needs 0.5 GB at the model's spacing" in outcome.failed["a"]
    assert "it may take 0.5 GB. Free memory, raise --memory" in outcome.failed["a"]
    assert not list((root / "out").glob("*.nii.gz"))
