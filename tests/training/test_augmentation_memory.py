"""The memory of augmentation on the device: its bound, and a training whose GPU has less."""

from __future__ import annotations

import pytest
import torch
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from plans_example import MakeTrainer

from benchmarks.augmentation_memory import Form, bound, measured_bytes
from factorizer_nnunet.planning.augmentation_memory import augmentation_bytes, region_size
from factorizer_nnunet.training import augmented
from factorizer_nnunet.training.augmentation.augmenter import DeviceAugmenter


@pytest.mark.parametrize(
    "form",
    [
        Form("3D", (24, 24, 24), channels=2),
        Form("anisotropic", (6, 40, 32), channels=1),
        Form("regions", (24, 20, 24), channels=4, regions=((1, 2, 3), (2, 3), (3,))),
        Form("2D", (96, 80), channels=3, batch=3),
    ],
    ids=lambda form: form.name,
)
def test_no_batch_needs_more_than_the_bound(form: Form) -> None:
    torch.manual_seed(0)
    measured = measured_bytes(form, turns=2)
    assert 0.2 * bound(form) < measured <= bound(form)


def test_the_bound_grows_with_all_that_a_batch_has() -> None:
    least = augmentation_bytes((128, 128, 128), 2, 4, 0, 1)
    assert region_size((128, 128, 128)) == (205, 205, 205)
    assert 0.5e9 < least < 1.5e9
    for more in (((128, 128, 160), 2, 4, 0, 1), ((128,) * 3, 3, 4, 0, 1), ((128,) * 3, 2, 5, 0, 1)):
        assert augmentation_bytes(*more) > least
    assert augmentation_bytes((128,) * 3, 2, 4, 2, 1) > least < augmentation_bytes((128,) * 3, 2, 4, 0, 3)


@pytest.mark.usefixtures("real_cases")
@pytest.mark.parametrize(("free", "kind"), [(10**6, SingleThreadedAugmenter), (10**10, DeviceAugmenter)])
def test_a_gpu_with_too_little_memory_leaves_augmentation_to_the_workers(
    make_trainer: MakeTrainer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    free: int,
    kind: type,
) -> None:
    monkeypatch.setattr(augmented, "free_bytes", lambda device: free)
    trainer = make_trainer()
    trainer.initialize()
    assert {type(loader) for loader in trainer.get_dataloaders()} == {kind}
    line = (
        "a training step and augmentation on the device need up to 0.0 GB, and the GPU has 0.0 GB: the workers augment"
    )
    assert capsys.readouterr().out.count(line) == (kind is SingleThreadedAugmenter)


def test_the_memory_of_a_step_counts_where_it_is_known(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.initialize()
    patch = tuple(trainer.configuration_manager.patch_size)
    augmentation = augmentation_bytes(patch, trainer.batch_size, 2, 0, 1)
    assert trainer._bytes_needed() > 2 * augmentation
    trainer.network = torch.nn.Identity()
    assert trainer._bytes_needed() == augmentation
    assert augmented.free_bytes(torch.device("cpu")) is None


def test_the_region_is_nnunets() -> None:
    for patch in ((128, 128, 128), (48, 192, 192), (64, 192, 160), (512, 512), (320, 192), (14, 256, 256)):
        trainer = nnUNetTrainer.__new__(nnUNetTrainer)
        trainer.configuration_manager = type("Settings", (), {"patch_size": list(patch)})
        trainer.print_to_log_file = lambda *_: None
        stock = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[2]
        assert region_size(patch) == tuple(stock)
