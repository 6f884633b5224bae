"""Labels decided row by row are those of nnU-Net's own export, up to ties by rounding."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy.ndimage import gaussian_filter

from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.prediction.description import ModelDescription
from factorizer_nnunet.prediction.label_decision import Source, decide_labels
from factorizer_nnunet.prediction.probabilities import write_probabilities
from factorizer_nnunet.prediction.resampling import axis_maps, keeps_type
from factorizer_nnunet.prediction.segmentation import Output, segmentation_of

CLASSES = LabelManager({"background": 0, **{str(value): value for value in range(1, 5)}, "ignore": 5}, None)
REGIONS = LabelManager({"background": 0, "all": [1, 2, 3], "core": [2, 3], "rim": 3}, [1, 3, 2])
DEFAULT = partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None)
TORCH = partial(resample_torch_fornnunet, is_seg=False, force_separate_z=False)
ISOTROPIC, THICK = (1.0, 1.1, 0.9), (6.0, 1.0, 1.0)
sizes = st.tuples(st.integers(1, 9), st.integers(2, 12), st.integers(2, 12))


def random_logits(labels: LabelManager, shape: tuple[int, ...], smooth: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    logits = random.standard_normal((labels.num_segmentation_heads, *shape))
    return np.stack([gaussian_filter(one, smooth) for one in logits]).astype(np.float32)


def share_of_equal(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape and a.dtype == b.dtype
    return float((a == b).mean())


@pytest.mark.parametrize("resample", [DEFAULT, TORCH, partial(DEFAULT, force_separate_z=True, order_z=1)])
@pytest.mark.parametrize("labels", [CLASSES, REGIONS])
@pytest.mark.parametrize("spacing", [ISOTROPIC, THICK])
@settings(deadline=None)  # busy machines
@given(source=sizes, target=sizes, seed=st.integers(0, 9), smooth=st.sampled_from([0.0, 1.5]))
def test_labels_are_those_of_the_resampled_logits(
    resample: partial,
    labels: LabelManager,
    spacing: tuple[float, ...],
    source: Any,
    target: Any,
    seed: int,
    smooth: float,
) -> None:
    logits = random_logits(labels, source, smooth, seed)
    maps = axis_maps(resample, source, target, spacing, spacing)
    assert maps is not None
    resampled = resample(logits.copy(), target, spacing, spacing)
    expected = np.asarray(labels.convert_logits_to_segmentation(resampled))
    found = decide_labels([Source(torch.from_numpy(logits).unbind(1), maps)], labels)
    # Sums in another order differ in their last digit, and nnU-Net's sigmoid rounds logits below 1e-7 to 0.5.
    ascending = np.sort(np.abs(resampled) if labels.has_regions else resampled, axis=0)
    tied = (ascending[0] if labels.has_regions else ascending[-1] - ascending[-2]) < 1e-6
    np.testing.assert_array_equal(found[~tied], expected.astype(found.dtype)[~tied])
    assert found.shape == expected.shape and tied.mean() <= 0.25  # at most a voxel of the smallest source, 1 × 2 × 2
    if not labels.has_regions:
        decided = np.take_along_axis(resampled, found[None].astype(int), 0)[0]
        assert (decided > resampled.max(0) - 1e-6).all()


@pytest.mark.parametrize("labels", [CLASSES, REGIONS])
@settings(deadline=None)  # busy machines
@given(first=sizes, second=sizes, target=sizes, seed=st.integers(0, 9))
def test_models_are_averaged_by_their_probabilities(
    labels: LabelManager, first: Any, second: Any, target: Any, seed: int
) -> None:
    """On grids of their own, as an ensemble of nnU-Net's does from files of probabilities."""
    sources, expected = [], np.zeros(())
    for number, shape in enumerate((first, second)):
        logits = random_logits(labels, shape, 1.0, seed + 20 * number) * 3
        maps = axis_maps(DEFAULT, shape, target, ISOTROPIC, ISOTROPIC)
        assert maps is not None
        sources.append(Source(torch.from_numpy(logits).unbind(1), maps))
        resampled = DEFAULT(logits.copy(), target, ISOTROPIC, ISOTROPIC)
        expected = expected + np.asarray(labels.apply_inference_nonlin(resampled)) / 2
    nnunets = np.asarray(labels.convert_probabilities_to_segmentation(expected))
    found = decide_labels(sources, labels)
    largest = np.sort(expected, axis=0)
    margin = np.abs(expected - 0.5).min(0) if labels.has_regions else largest[-1] - largest[-2]
    decided = margin > 1e-5
    np.testing.assert_array_equal(found[decided], nnunets.astype(found.dtype)[decided])
    assert decided.mean() > 0.9 or decided.size < 100


def test_ties_in_half_precision_are_decided_as_nnunet_does() -> None:
    shape, target = (7, 9, 11), (13, 17, 16)
    logits = (random_logits(CLASSES, shape, 1.0, 0) * 9 + 1000).astype(np.float16)
    maps = axis_maps(DEFAULT, shape, target, ISOTROPIC, ISOTROPIC)
    assert maps is not None and keeps_type(DEFAULT) and not keeps_type(TORCH)
    resampled = DEFAULT(logits.copy(), target, ISOTROPIC, ISOTROPIC)
    expected = CLASSES.convert_logits_to_segmentation(resampled).astype(np.uint8)
    sources = [Source(torch.from_numpy(logits).unbind(1), maps, rounds) for rounds in (False, True)]
    shares = [share_of_equal(decide_labels([source], CLASSES), expected) for source in sources]
    assert shares[0] < 0.999 < shares[1]


def test_where_everything_is_background_nothing_is_computed() -> None:
    logits = torch.zeros(5, 3, 4, 4)
    logits[0] = 1
    maps = axis_maps(DEFAULT, (3, 4, 4), (6, 8, 8), ISOTROPIC, ISOTROPIC)
    assert maps is not None
    assert not decide_labels([Source(logits.unbind(1), maps)], CLASSES).any()


def test_foreground_that_a_coarser_grid_passes_over_is_lost_as_in_nnunet() -> None:
    logits = torch.zeros(5, 9, 9, 9)
    logits[0], logits[3, :, 8, 8] = 1, 2  # the means of a grid of two voxels along each axis are of 1, 2, 6 and 7
    maps = axis_maps(DEFAULT, (9, 9, 9), (2, 2, 2), ISOTROPIC, ISOTROPIC)
    assert maps is not None
    expected = CLASSES.convert_logits_to_segmentation(DEFAULT(logits.numpy(), (2, 2, 2), ISOTROPIC, ISOTROPIC))
    found = decide_labels([Source(logits.unbind(1), maps)], CLASSES)
    assert not found.any() and not np.any(expected)


def test_255_labels_and_more_need_two_bytes() -> None:
    labels = LabelManager({"background": 0, **{str(value): value for value in range(1, 300)}}, None)
    logits = torch.zeros(300, 1, 1, 2)
    logits[299, 0, 0, 1] = 1
    maps = axis_maps(DEFAULT, (1, 1, 2), (1, 1, 2), ISOTROPIC, ISOTROPIC)
    assert maps is not None
    found = decide_labels([Source(logits.unbind(1), maps)], labels)
    assert found.dtype == np.uint16 and found.ravel().tolist() == [0, 299]


@pytest.mark.parametrize(
    "resample",
    [
        partial(DEFAULT, order=3),
        partial(DEFAULT, unknown=1),
        partial(TORCH, mode="nearest"),
        partial(np.resize),
    ],
)
def test_other_resampling_is_left_to_nnunet(resample: partial) -> None:
    assert axis_maps(resample, (3, 4, 5), (6, 8, 10), ISOTROPIC, ISOTROPIC) is None


PROPERTIES = {
    "spacing": [1.0, 2.0, 1.5],  # mm, as the reader gives it
    "shape_before_cropping": (14, 16, 12),
    "bbox_used_for_cropping": [[1, 11], [2, 15], [0, 9]],
    "shape_after_cropping_and_before_resampling": (10, 13, 9),
}


def transposing_model(configuration: str, order: int = 1, regions: bool = False) -> ModelDescription:
    content = tiny_models.plans() | {"transpose_forward": [1, 2, 0], "transpose_backward": [2, 0, 1]}
    for one in content["configurations"].values():
        one["resampling_fn_probabilities"] = "resample_data_or_seg_to_shape"
        one["resampling_fn_probabilities_kwargs"] = dict(DEFAULT.keywords) | {"order": order}
    plans = PlansManager(content)
    labels = {"labels": {"background": 0, "all": [1, 2], "core": 2}, "regions_class_order": [1, 2]} if regions else {}
    dataset = DatasetJson(tiny_models.DATASET | labels, Path("dataset.json"))
    return ModelDescription(plans, plans.get_configuration(configuration), dataset)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_cropped_and_transposed_images(configuration: str, order: int) -> None:
    model = transposing_model(configuration, order)
    source = (10, 8, 14) if configuration == "2d" else (7, 8, 14)
    logits = random_logits(model.labels, source, 1.0, 0)
    expected = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits.copy(), model.plans, model.configuration, model.labels, PROPERTIES, num_threads_torch=1
    )
    found = segmentation_of(Output(torch.from_numpy(logits).unbind(1), source, PROPERTIES, model))
    assert found.any() and share_of_equal(found, expected) == 1


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_probabilities_are_those_of_nnunets_export(configuration: str, regions: bool, tmp_path: Path) -> None:
    model = transposing_model(configuration, regions=regions)
    source = (10, 8, 14) if configuration == "2d" else (7, 8, 14)
    logits = (random_logits(model.labels, source, 1.0, 0) * 40).astype(np.float16)
    _, expected = convert_predicted_logits_to_segmentation_with_correct_shape(
        *(logits.copy(), model.plans, model.configuration, model.labels, PROPERTIES),
        return_probabilities=True,
        num_threads_torch=1,
    )
    maps = Output([], source, PROPERTIES, model).maps
    assert maps is not None
    before = logits.copy()
    write_probabilities(tmp_path / "a.npz", torch.from_numpy(logits), maps, PROPERTIES, model)
    np.testing.assert_array_equal(logits, before)
    with np.load(tmp_path / "a.npz") as found:
        assert found.files == ["probabilities"] and found["probabilities"].flags.c_contiguous
        tiny_models.assert_equal_within_rounding(found["probabilities"], expected)
