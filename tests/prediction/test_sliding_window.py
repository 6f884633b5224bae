"""Logits plane by plane are nnU-Net's, bit for bit with one fold; memory that ends on the GPU is found elsewhere."""

import itertools
from pathlib import Path

import pytest
import tiny_models
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.prediction import sliding_window
from factorizer_nnunet.prediction.description import ModelDescription
from factorizer_nnunet.prediction.sliding_window import TileOptions, logit_planes

SHAPES = [(8, 16, 16), (19, 33, 21), (5, 40, 9), (26, 16, 37)]  # the patch is 8 x 16 x 16


def predictor_of(configuration: str, folds: int = 1, step: float = 0.5, mirroring: bool = True) -> nnUNetPredictor:
    plans = PlansManager(tiny_models.plans())
    model = ModelDescription(
        plans, plans.get_configuration(configuration), DatasetJson(tiny_models.DATASET, Path("dataset.json"))
    )
    axes = len(model.configuration.patch_size)

    def network(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        convolution = nn.Conv2d if axes == 2 else nn.Conv3d
        return nn.Sequential(convolution(2, 4, 3, padding=1), nn.ReLU(), convolution(4, 3, 3, padding=1))

    made = nnUNetPredictor(step, use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False)
    weights = [network(seed).state_dict() for seed in range(folds)]
    made.manual_initialization(
        network(99), plans, model.configuration, weights, tiny_models.DATASET, "nnUNetTrainer", tuple(range(axes))
    )
    return made


def image(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize(
    ("shape", "step", "mirroring"), [*zip(SHAPES, (0.5, 0.3, 1.0, 0.5), (1, 1, 0, 0), strict=True)]
)
def test_one_fold_gives_nnunets_logits(configuration: str, shape: tuple, step: float, mirroring: bool) -> None:
    predictor = predictor_of(configuration, step=step, mirroring=bool(mirroring))
    expected = predictor.predict_logits_from_preprocessed_data(image(shape))
    found = torch.stack(list(logit_planes(predictor, image(shape))), 1)
    assert found.dtype == expected.dtype == torch.half and torch.equal(found, expected)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_several_folds_give_their_mean(configuration: str) -> None:
    predictor = predictor_of(configuration, folds=3)
    expected = predictor.predict_logits_from_preprocessed_data(image(SHAPES[1]))
    for _ in range(2):  # afterwards, the weights of the last fold are in the network then
        found = torch.stack(list(logit_planes(predictor, image(SHAPES[1]))), 1)
        inner = (slice(None), *[slice(size // 8, -size // 8) for size in SHAPES[1]])  # nnU-Net is coarse in corners
        torch.testing.assert_close(found[inner], expected[inner], atol=2e-3, rtol=0)
        assert (found.argmax(0) == expected.argmax(0))[inner[1:]].float().mean() >= 0.999


def test_only_the_planes_of_a_tile_are_kept() -> None:
    sums = []
    predictor, depth = predictor_of("3d_fullres", mirroring=False), 40
    planes = logit_planes(predictor, image((depth, 16, 16)))
    original = sliding_window._Sums.pop

    def pop(self: sliding_window._Sums, row: int) -> Tensor:
        sums.append(self.logits.shape[1])
        return original(self, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliding_window._Sums, "pop", pop)
        assert len(list(itertools.islice(planes, 4))) == 4, "the first planes come before the last tiles"
        assert set(sums) == {8} and len(sums) == 4


def test_tiles_without_contrast_can_be_skipped() -> None:
    predictor, data = predictor_of("3d_fullres", mirroring=False), image((16, 32, 32))
    data[:, :, :, 16:] = -1
    expected = torch.stack(list(logit_planes(predictor, data)), 1)
    found = torch.stack(list(logit_planes(predictor, data, TileOptions(skip_empty=True))), 1)
    assert torch.equal(found[..., :16], expected[..., :16])
    assert (found[..., 24:].argmax(0) == 0).all()
    nothing = torch.stack(list(logit_planes(predictor, torch.zeros(2, 16, 32, 32), TileOptions(skip_empty=True))), 1)
    assert (nothing.argmax(0) == 0).all()


@pytest.mark.parametrize("folds", [1, 2])
def test_sums_on_disk_are_the_same_and_leave_nothing(tmp_path: Path, folds: int) -> None:
    predictor = predictor_of("3d_fullres", folds)
    expected = torch.stack(list(logit_planes(predictor, image(SHAPES[1]))), 1)
    on_disk = logit_planes(predictor, image(SHAPES[1]), TileOptions(sums_folder=tmp_path))
    first = next(on_disk)
    assert not list(tmp_path.iterdir()), "the file has no name, so that a kill leaves nothing"
    assert torch.equal(torch.stack([first, *on_disk], 1), expected)


def test_sums_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sums of the tiles cannot be written to .*missing"):
        next(logit_planes(predictor_of("3d_fullres"), image(SHAPES[1]), TileOptions(sums_folder=tmp_path / "missing")))


def test_when_the_gpu_is_full_the_sums_move_to_main_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """On the CPU, which stands for the GPU here: the network fails until the sums have moved."""
    predictor = predictor_of("3d_fullres", mirroring=False)
    expected = predictor.predict_logits_from_preprocessed_data(image(SHAPES[1]))
    network = sliding_window._Network.of(predictor)
    sums = sliding_window._Sums(
        classes=3,
        precision=torch.half,
        height=8,
        plane=(16, 16),
        patch=(8, 16, 16),
        on_gpu=True,
        gpu=torch.device("cpu"),
        folder=None,
    )
    calls, mean = [], network._mean

    def full(tile: Tensor, seen: object) -> Tensor:
        calls.append(sums.on_gpu)
        if sums.on_gpu:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return mean(tile)

    network._mean = full  # type: ignore[method-assign]
    data = image((8, 16, 16))
    sums.add(network.logits(data, sums), (slice(0, 8), slice(0, 16), slice(0, 16)))
    assert calls == [True, False] and "kept in main memory" in capsys.readouterr().out
    expected = predictor.predict_logits_from_preprocessed_data(data)
    assert torch.equal(torch.stack([sums.pop(row) for row in range(8)], 1), expected)
    network._mean = lambda tile, seen: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory"))  # type: ignore
    with pytest.raises(torch.OutOfMemoryError):
        network.logits(data, sums)
