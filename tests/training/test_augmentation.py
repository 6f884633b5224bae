"""Augmentation on the device gives what nnU-Net's workers give, from fewer voxels."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augmentation_example import FORMS, Form, loader_of, pipeline_of, save_cases
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.noise.median_filter import MedianFilterTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from waits import Waits

from factorizer_nnunet.training.augmentation import transforms
from factorizer_nnunet.training.augmentation.loader import BOX_PARTS, BoxLoader
from factorizer_nnunet.training.augmentation.pipeline import divide
from factorizer_nnunet.training.augmentation.resampling import sample_image, sample_labels, sampled_positions
from factorizer_nnunet.training.augmentation.spatial import OUTSIDE, SpatialDraws
from factorizer_nnunet.training.augmentation.unsupported import UnsupportedError


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cases(tmp_path_factory.mktemp("cases"))


def seed(number: int) -> None:
    np.random.seed(number)
    torch.manual_seed(number)


def assert_same_image(image: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-4 of the range."""
    tolerance = 1e-4 * float(expected.max() - expected.min())
    torch.testing.assert_close(image, expected, rtol=0, atol=tolerance)


def certain(pipeline: BasicTransform) -> BasicTransform:
    """The pipeline with every transform of a random sample applied."""
    pipeline = copy.deepcopy(pipeline)
    for transform in pipeline.transforms:
        if isinstance(transform, RandomTransform):
            transform.apply_probability = 1
        if isinstance(transform, SpatialTransform):
            transform.p_rotation = transform.p_scaling = 0.7
    return pipeline


@pytest.mark.parametrize(
    ("always", "foreground"),
    [(False, 0.33), (True, 0.33), (False, 1.0)],
    ids=["as often as nnU-Net", "every transform", "around foreground"],
)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_same_numbers_give_the_same_batches(cases: Path, form: Form, always: bool, foreground: float) -> None:
    """With one random state, the stock loader and the divided one draw alike: case, place, and every parameter.

    Labels that are tied are decided alike, too.
    """
    stock = loader_of(form, cases, foreground=foreground)
    assert stock.get_do_oversample(0) == (foreground == 1)
    if always:
        stock.transforms = certain(stock.transforms)
    divided = divide(copy.deepcopy(stock.transforms))  # some transforms shuffle a list of their own at each draw
    boxes = BoxLoader(stock, divided.draws)
    for number in range(15):
        seed(number)
        expected = next(stock)
        seed(number)
        box = next(boxes)
        image, target = divided.transform(*(box[part][0] for part in BOX_PARTS))
        assert list(box["keys"]) == list(expected["keys"])
        assert_same_image(image, expected["data"][0])
        targets, wanted = (value if isinstance(value, list) else [value] for value in (target, expected["target"]))
        for one, other in zip(targets, wanted, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other[0])


@pytest.mark.parametrize("name", ["3D", "2D", "anisotropic"])
def test_validation_batches_are_the_same(cases: Path, name: str) -> None:
    stock = loader_of(FORMS[name], cases)
    stock.patch_size = stock.final_patch_size
    stock.need_to_pad = stock.need_to_pad * 0
    stock.transforms = ComposeTransforms(stock.transforms.transforms[-2:])  # as of get_validation_transforms
    divided = divide(stock.transforms)
    boxes = BoxLoader(stock, divided.draws)
    for number in range(10):
        seed(number)
        expected = next(stock)
        seed(number)
        box = next(boxes)
        image, targets = divided.transform(*(box[part][0] for part in BOX_PARTS))
        assert torch.equal(image, expected["data"][0])
        assert all(torch.equal(one, other[0]) for one, other in zip(targets, expected["target"], strict=True))


def test_no_more_is_read_than_a_sample_needs() -> None:
    pipeline, region = pipeline_of(Form((16, 16, 16)))
    draws = divide(pipeline).draws
    assert draws is not None
    seed(0)
    boxes = [draws.draw([10, 20, 30], np.add([10, 20, 30], region).tolist(), (80, 80, 80)) for _ in range(2000)]
    plain = [box for box in boxes if box.affine is None]
    assert 0.61 < len(plain) / 2000 < 0.67  # neither rotated (0.8) nor scaled (0.8)
    first = [low + size // 2 - 8 for low, size in zip((10, 20, 30), region, strict=True)]
    assert {(box.start, box.stop) for box in plain} == {(tuple(first), tuple(np.add(first, 16)))}
    for box in boxes:
        if box.affine is not None:
            positions = sampled_positions(box.affine, (16, 16, 16), torch.device("cpu"))
            for axis, position in enumerate(positions):
                # Either the box ends at the region, or with the last voxel that a sampled point touches.
                size = box.stop[axis] - box.start[axis]
                end = (10, 20, 30)[axis] + region[axis]
                assert box.stop[axis] == end or position.max() < size - 1 + 0.02
                assert box.stop[axis] == end or position.max() > size - 2.02
                assert box.start[axis] == (10, 20, 30)[axis] or -0.02 < position.min() < 1.02


def test_rotations_and_scales_are_drawn_in_nnunets_ranges() -> None:
    draws = divide(pipeline_of(Form((16, 16, 16)))[0]).draws
    assert draws is not None
    seed(1)
    matrices = [box.affine for box in (draws.draw([0] * 3, [27] * 3, [27] * 3) for _ in range(2000)) if box.affine]
    columns = np.linalg.norm(np.array(matrices)[:, :, :3], axis=1)
    scaled = np.abs(columns[:, 0] - 1) > 1e-6
    assert np.allclose(columns, columns[:, :1])  # one scale for all axes
    assert (columns >= 0.7).all() and (columns <= 1.4).all() and columns.min() < 0.71 and columns.max() > 1.38
    assert 0.5 < scaled.mean() < 0.61  # 0.2 of the 0.36 that are rotated or scaled
    turned = np.array(matrices)[:, :, :3] / columns[:, None]
    about_last = np.abs(np.degrees(np.arctan2(turned[:, 1, 0], turned[:, 0, 0])))
    assert about_last.max() < 50 and about_last.max() > 28  # three rotations of up to 30 degrees


def test_labels_of_equal_weight_are_decided_by_the_nearest_voxel() -> None:
    labels = torch.tensor([[[3, 1], [1, 3]]], dtype=torch.int16)
    between = sampled_positions([[1, 0, 0.5], [0, 1, 0.5]], (1, 1), labels.device)
    assert sample_labels(labels, between, OUTSIDE).item() == 3  # the nearest, as torch rounds 0.5 to 0
    outside = sampled_positions([[1, 0, -5], [0, 1, 0]], (1, 1), labels.device)
    assert sample_labels(labels, outside, OUTSIDE).item() == OUTSIDE
    assert sample_image(labels.float(), outside).item() == 0


def intensity_transforms() -> list[BasicTransform]:
    """Each transform of all forms once, unwrapped, by class."""
    found: dict[type, BasicTransform] = {}
    for form in FORMS.values():
        for transform in divide(pipeline_of(form)[0]).others:
            inner = transform.transform if isinstance(transform, RandomTransform) else transform
            found.setdefault(type(inner), inner)
    return [
        *found.values(),
        GaussianBlurTransform((0.3, 4.0), True, False, 0.7),
        GaussianBlurTransform((0.3, 4.0), False, True, 0.7),
        GaussianNoiseTransform((0, 0.4), 0.5, False),
        ContrastTransform(BGContrast((0.5, 2)), False, True, 0.5),
    ]


def sample_for(transform: BasicTransform, number: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(number)
    image = rng.normal(size=(4, 18, 14, 22)).astype(np.float32)
    if "channel_idx" in vars(transform):  # of one-hot labels
        image[-2:] = image[-2:] > 0.9
    labels = rng.integers(-1, 4, size=(2, 18, 14, 22)).astype(np.int16)
    return {"image": torch.from_numpy(image), "segmentation": torch.from_numpy(labels)}


@pytest.mark.parametrize("transform", intensity_transforms(), ids=lambda transform: type(transform).__name__)
def test_a_transform_gives_the_values_of_batchgeneratorsv2(transform: BasicTransform) -> None:
    stock = copy.deepcopy(transform)
    for number in range(20):
        expected, given = sample_for(transform, number), sample_for(transform, number)
        seed(number)
        expected = stock(**expected)
        seed(number)
        given = transforms.apply(transform, given)
        assert_same_image(given["image"], expected["image"])
        torch.testing.assert_close(given["segmentation"], expected["segmentation"], rtol=0, atol=0)


ON_DEVICE = [  # one labels components with a library for the CPU
    one for one in intensity_transforms() if type(one) is not RemoveRandomConnectedComponentFromOneHotEncodingTransform
]


@pytest.mark.parametrize("transform", ON_DEVICE, ids=lambda transform: type(transform).__name__)
def test_a_transform_does_not_wait_for_the_device(transform: BasicTransform) -> None:
    """Tensors of the meta device have no values: whoever asks for one, or mixes devices, gets an exception."""
    for number in range(10):
        seed(number)
        sample = {name: value.to("meta") for name, value in sample_for(transform, number).items()}
        with Waits() as waits:
            result = transforms.apply(transform, sample)
        assert waits.copies == 0
        targets = result["segmentation"] if isinstance(result["segmentation"], list) else [result["segmentation"]]
        assert {result["image"].device.type, *(target.device.type for target in targets)} == {"meta"}


@pytest.mark.parametrize("form", [FORMS["3D"], FORMS["2D"], FORMS["anisotropic"]], ids=["3D", "2D", "anisotropic"])
def test_sampling_does_not_wait_for_the_device(form: Form) -> None:
    pipeline, region = pipeline_of(form)
    divided = divide(certain(pipeline))
    assert divided.draws is not None
    seed(3)
    shape = [40] * len(region)
    box = divided.draws.draw([2] * len(region), np.add(region, 2).tolist(), shape)
    size = np.subtract(box.stop, box.start).tolist()
    image = torch.empty(2, *size, device="meta")
    labels = torch.empty(1, *size, dtype=torch.int16, device="meta")
    with Waits() as waits:
        data, targets = divided.transform(image, labels, box.pad, box.affine)
    assert waits.copies == 0
    assert data.shape == (2, *form.patch) and data.device.type == "meta"
    assert [target.dtype for target in targets] == [torch.int16] * 2


class OtherBlur(GaussianBlurTransform):
    """A subclass may do anything."""


def spoil(change: Callable[[list[Any]], None]) -> BasicTransform:
    pipeline = pipeline_of(Form((16, 16, 16)))[0]
    change(pipeline.transforms)
    return pipeline


@pytest.mark.parametrize(
    ("pipeline", "named"),
    [
        (spoil(lambda all_: all_.insert(3, OtherBlur())), "the transform OtherBlur"),
        (
            spoil(lambda all_: all_.append(RandomTransform(MedianFilterTransform(3)))),
            "the transform MedianFilterTransform",
        ),
        (spoil(lambda all_: all_.insert(0, all_[-1])), "the transform SpatialTransform"),
        (spoil(lambda all_: setattr(all_[0], "p_elastic_deform", 0.2)), "SpatialTransform with p_elastic_deform=0.2"),
        (spoil(lambda all_: setattr(all_[0], "mode_image", "bicubic")), "SpatialTransform with mode_image='bicubic'"),
        (
            spoil(lambda all_: setattr(all_[1].transform, "noise_variance", lambda image: float(image.std()))),
            "GaussianNoiseTransform with the function noise_variance",
        ),
        (GaussianBlurTransform(), "the pipeline GaussianBlurTransform"),
    ],
)
def test_what_is_not_known_is_named(pipeline: BasicTransform, named: str) -> None:
    with pytest.raises(UnsupportedError) as error:
        divide(pipeline)
    assert str(error.value) == named


def test_the_settings_of_the_spatial_transform_that_are_checked_exist() -> None:
    from factorizer_nnunet.training.augmentation.spatial import _HANDLED

    assert set(_HANDLED) <= set(inspect.signature(SpatialTransform).parameters)
    with pytest.raises(UnsupportedError, match="random_crop=True"):
        SpatialDraws(SpatialTransform((8, 8), 0, True))
