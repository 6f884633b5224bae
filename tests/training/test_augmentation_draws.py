"""Whole pipelines draw as nnU-Net's do: how often each transform is applied, and with which parameters."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augmentation_example import FORMS, Form, loader_of, pipeline_of, save_cases
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from scipy.stats import ks_2samp
from torch import Tensor

from factorizer_nnunet.training.augmentation import transforms
from factorizer_nnunet.training.augmentation.loader import BOX_PARTS, BoxLoader
from factorizer_nnunet.training.augmentation.pipeline import divide

DRAWS = 2000
# All bounds are passed by chance once in 100,000 comparisons, of which the tests make some hundreds; seeds are fixed.
ERRORS = 4.5  # standard errors
CHANCE = 1e-5
ENDS = 25  # n uniform values leave 12 / n of their range free at an end by such a chance; no density here is below half
# The same forms with few voxels, which are not computed anyway.
SMALL = {name: replace(form, patch=tuple(size // 4 for size in form.patch)) for name, form in FORMS.items()}
OPERATORS = [operator.__name__ for operator in transforms._OPERATORS]


class Draws:
    """What each transform of a pipeline was applied with, by its place in the pipeline."""

    def __init__(self, pipeline: BasicTransform) -> None:
        self.inner = [one.transform if isinstance(one, RandomTransform) else one for one in pipeline.transforms]
        self.names = [f"{place}: {type(one).__name__}" for place, one in enumerate(self.inner)]
        self.applied: dict[str, list[dict[str, list[float]]]] = defaultdict(list)  # a sample's numbers by parameter

    def add(self, transform: BasicTransform, parameters: dict[str, Any]) -> None:
        name = self.names[next(place for place, one in enumerate(self.inner) if one is transform)]
        if isinstance(transform, SpatialTransform):
            if parameters["affine"] is None:
                return
            parameters = described(np.array(parameters["affine"]))
        self.applied[name].append({key: numbers(value) for key, value in parameters.items()})


def described(matrix: np.ndarray) -> dict[str, float]:
    """The scale and the entries of a rotated and scaled grid's matrix."""
    entries = {f"entry {row}, {column}": value for (row, column), value in np.ndenumerate(matrix)}
    return {"scale": float(np.linalg.norm(matrix[:, 0])), **entries}


def numbers(value: Any) -> list[float]:
    """All numbers of a parameter; an operator is its place in a list."""
    if isinstance(value, Tensor | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [number for part in value for number in numbers(part)]
    if value is None:
        return []
    return [float(OPERATORS.index(value.__name__) if callable(value) else value)]


@functools.cache
def drawn_by_nnunet(form: Form) -> Draws:
    """Runs batchgeneratorsv2's pipeline, each transform of which notes its parameters instead of being applied."""
    seed(0)
    pipeline, region = pipeline_of(form)
    draws = Draws(pipeline)
    for transform in draws.inner:
        if not isinstance(transform, Convert3DTo2DTransform | Convert2DTo3DTransform):
            transform.apply = _noting(draws, transform)
    image, labels = (torch.empty(1).expand(channels, *region) for channels in (2, 1))
    for _ in range(DRAWS):
        pipeline(image=image, segmentation=labels)
    return draws


def _noting(draws: Draws, transform: BasicTransform) -> Callable[..., dict]:
    def apply(sample: dict, **parameters: Any) -> dict:
        draws.add(transform, parameters)
        return sample

    return apply


def drawn_by_ours(pipeline: BasicTransform, form: Form, region: list[int], monkeypatch: pytest.MonkeyPatch) -> Draws:
    """Runs the divided pipeline in the same way."""
    seed(1)
    draws = Draws(pipeline)
    divided = divide(pipeline)
    spatial = next(transform for transform in draws.inner if isinstance(transform, SpatialTransform))

    def apply_with(transform: BasicTransform, sample: dict, parameters: dict[str, Any]) -> dict:
        draws.add(transform, parameters)
        return sample

    monkeypatch.setattr(transforms, "apply_with", apply_with)
    assert divided.draws is not None
    image, labels = (torch.empty(1).expand(channels, *form.patch) for channels in (2, 1))
    for _ in range(DRAWS):
        affine = divided.draws.draw([0] * len(region), region, region).affine
        draws.add(spatial, {"affine": None if affine is None else [row[:-1] for row in affine]})
        divided.transform(image, labels, [(0, 0)], None)
    return draws


def assert_same_draws(ours: Draws, stock: Draws) -> None:
    """Equal in how often each transform is applied, and in number, mean, ends and distribution of its parameters."""
    assert ours.names == stock.names
    assert set(ours.applied) == set(stock.applied)
    for name, expected in stock.applied.items():
        found = ours.applied[name]
        rate = len(expected) / DRAWS
        assert abs(len(found) - len(expected)) <= ERRORS * np.sqrt(2 * DRAWS * rate * (1 - rate)), name
        for key in expected[0]:
            one, other = ([sample[key] for sample in samples] for samples in (found, expected))
            assert_same_mean(list(map(len, one)), list(map(len, other)), f"{name}, number of {key}")
            means = ([float(np.mean(own)) for own in samples if own] for samples in (one, other))
            assert_same_mean(*means, f"{name}, {key}")
            assert_same_distribution(one, other, f"{name}, {key}")


def assert_same_mean(one: Sequence[float], other: Sequence[float], what: str) -> None:
    if one or other:
        error = np.sqrt(np.var(one) / len(one) + np.var(other) / len(other))
        assert abs(np.mean(one) - np.mean(other)) <= ERRORS * error + 1e-6, what


def assert_same_distribution(one: list[list[float]], other: list[list[float]], what: str) -> None:
    """By the test of Kolmogorov and Smirnov, and the ends of the range; numbers of one sample may be equal."""
    first, second = ([number for own in samples for number in own] for samples in (one, other))
    if not first and not second:
        return
    samples = min(sum(map(bool, one)), sum(map(bool, other)))
    assert ks_2samp(first, second).statistic <= np.sqrt(-np.log(CHANCE / 2) / samples), what
    if "entry" not in what:  # which is rarely near its largest value
        span = max(second) - min(second)
        assert abs(min(first) - min(second)) <= ENDS / samples * span + 1e-6, what
        assert abs(max(first) - max(second)) <= ENDS / samples * span + 1e-6, what


@pytest.mark.parametrize("form", SMALL.values(), ids=SMALL)
def test_the_pipeline_draws_as_nnunets(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = drawn_by_nnunet(form)
    pipeline, region = pipeline_of(form)
    ours = drawn_by_ours(pipeline, form, region, monkeypatch)
    assert_same_draws(ours, stock)
    for name, transform in zip(ours.names, pipeline.transforms, strict=True):
        if name in ours.applied:  # what nnU-Net's settings say
            rate = transform.apply_probability if isinstance(transform, RandomTransform) else 1.0
            if isinstance(transform, SpatialTransform):
                rate = 1 - (1 - transform.p_rotation) * (1 - transform.p_scaling)
            error = np.sqrt(DRAWS * rate * (1 - rate))
            assert abs(len(ours.applied[name]) - DRAWS * rate) <= ERRORS * error, name


def changed(kind: str, **settings: Any) -> Callable[[BasicTransform], None]:
    """Gives other settings to the first transform of a kind."""

    def change(pipeline: BasicTransform) -> None:
        transform = next(one for one in pipeline.transforms if kind in f"{type(getattr(one, 'transform', one))}")
        for name, value in settings.items():
            target = transform if hasattr(transform, name) else transform.transform
            assert hasattr(target, name)
            setattr(target, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        (changed("SpatialTransform", p_rotation=0.3), "SpatialTransform"),
        (changed("SpatialTransform", scaling=(0.7, 1.25)), "SpatialTransform, scale"),
        (changed("SpatialTransform", rotation=(-0.7, 0.7)), "SpatialTransform, entry"),
        (changed("GaussianNoise", apply_probability=0.15), "GaussianNoiseTransform"),
        (changed("GaussianNoise", noise_variance=(0, 0.15)), "GaussianNoiseTransform"),
        (changed("GaussianBlur", p_per_channel=0.7), "GaussianBlurTransform"),
        (changed("Contrast", p_per_channel=0.9), "ContrastTransform, number of"),
        (changed("LowResolution", scale=(0.4, 1)), "SimulateLowResolutionTransform"),
        (changed("Mirror", allowed_axes=(0, 1)), "MirrorTransform, number of axes"),
        (lambda pipeline: pipeline.transforms.pop(4), "ContrastTransform"),
    ],
)
def test_a_difference_is_noticed(
    change: Callable[[BasicTransform], None], noticed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = SMALL["3D"]
    stock = drawn_by_nnunet(form)
    pipeline, region = pipeline_of(form)
    change(pipeline)
    ours = drawn_by_ours(pipeline, form, region, monkeypatch)
    with pytest.raises(AssertionError, match=noticed):
        assert_same_draws(ours, stock)


def statistics(image: Tensor, target: Tensor) -> list[float]:
    """Of a sample: mean, deviation and ends of the first and last channel, their unevenness, and the labels."""
    found = []
    for channel in (image[0], image[-1]):
        ahead, behind = (half.mean() for half in channel.tensor_split(2))
        found += [channel.mean(), channel.std(), channel.min(), channel.max(), ahead - behind]
    return [float(value) for value in (*found, target.float().mean(), target.float().std())]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["3D", "2D", "anisotropic", "regions, ignore label, cascade"])
def test_samples_are_distributed_as_nnunets(tmp_path: Path, name: str) -> None:
    """With random numbers of their own, from the loader to the target."""
    number = 600
    stock = loader_of(FORMS[name], save_cases(tmp_path / "cases"), batch_size=3)
    divided = divide(pipeline_of(FORMS[name])[0])
    boxes = BoxLoader(stock, divided.draws)
    of_stock, of_ours = [], []
    seed(2)
    for _ in range(number // 3):
        batch = next(stock)
        of_stock += [statistics(*one) for one in zip(batch["data"], batch["target"][0], strict=True)]
    seed(3)
    for _ in range(number // 3):
        batch = next(boxes)
        for box in zip(*(batch[part] for part in BOX_PARTS), strict=True):
            image, targets = divided.transform(*box)
            of_ours.append(statistics(image, targets[0]))
    for place, (one, other) in enumerate(zip(np.transpose(of_ours), np.transpose(of_stock), strict=True)):
        assert ks_2samp(one, other).pvalue > CHANCE, place


def seed(number: int) -> None:
    np.random.seed(number)
    torch.manual_seed(number)
