"""Passes compared tile by tile: every voxel once, and agreement exactly as the passes' own labels have it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from test_sliding_window import SHAPES, image, predictor_of
from torch import Tensor

from factorizer_nnunet.nnunet.pass_record import PassRecord, RegionPasses, expected_dice, records_of
from factorizer_nnunet.nnunet.pass_record import content_of as content_of_records
from factorizer_nnunet.prediction.pass_comparison import PassComparison, pairwise_dice
from factorizer_nnunet.prediction.sliding_window import TileOptions, logit_planes
from factorizer_nnunet.prediction.tile_parts import TilePart, TileParts, nearest_parts


def test_each_voxel_belongs_to_the_tile_with_the_nearest_centre() -> None:
    starts, length, size = [0, 3, 7, 12], 8, 20
    parts = nearest_parts(starts, length, size)
    for start, part in zip(starts, parts, strict=True):
        for voxel in range(part.start, part.stop):
            away = [abs(voxel + 0.5 - (other + length / 2)) for other in starts]
            assert away[starts.index(start)] == min(away)
    assert [voxel for part in parts for voxel in range(part.start, part.stop)] == list(range(size))


def test_parts_cover_the_image_once_without_its_padding() -> None:
    image_part = (slice(1, 9), slice(0, 20), slice(4, 12))
    starts = ([0, 2], [0, 6, 12], [0, 8])
    parts = TileParts(starts, (8, 8, 8), (10, 20, 16), image_part)
    seen = np.zeros((8, 20, 8), int)
    for start in itertools.product(*starts):
        part = parts.of(start)
        if part is not None:
            seen[part.place] += 1
            for first, inside, place, whole in zip(start, part.inside, part.place, image_part, strict=True):
                assert inside.start + first == place.start + whole.start
    assert (seen == 1).all()


class Recorder:
    """Stores the logits of every pass, put together from the parts of the tiles."""

    def __init__(self, classes: int, shape: tuple[int, ...]) -> None:
        self.shape = (classes, *shape)
        self.passes: dict[tuple[int, int], Tensor] = {}
        self.folds: dict[int, Tensor] = {}

    def begin(self, part: TilePart) -> None:
        self.part, self.counts = part, dict.fromkeys(range(9), 0)

    def see_pass(self, fold: int, logits: Tensor) -> None:
        number = self.counts[fold]
        self.counts[fold] += 1
        target = self.passes.setdefault((fold, number), torch.full(self.shape, math.nan))
        target[(slice(None), *self.part.place)] = logits[(slice(None), *self.part.inside)]

    def see_fold(self, fold: int, logits: Tensor) -> None:
        target = self.folds.setdefault(fold, torch.full(self.shape, math.nan))
        target[(slice(None), *self.part.place)] = logits[(slice(None), *self.part.inside)]

    def end(self) -> None:
        pass


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize(("configuration", "folds"), [("3d_fullres", 1), ("3d_fullres", 2), ("2d", 1)])
def test_agreement_is_that_of_the_labels_of_all_passes(configuration: str, folds: int, overlap: bool) -> None:
    shape = SHAPES[1]
    predictor = predictor_of(configuration, folds=folds)
    recorder, comparison = Recorder(3, shape), PassComparison(shape, (1, 2), overlap, folds)
    without = torch.stack(list(logit_planes(predictor, image(shape))), 1)
    for watcher in (recorder, comparison):
        watched = torch.stack(list(logit_planes(predictor, image(shape), watcher=watcher)), 1)
        assert torch.equal(watched, without), "watching changes nothing"
    found = comparison.result()

    def masks(logits: Tensor) -> np.ndarray:
        decided = logits > 0 if overlap else torch.stack([logits.argmax(0) == number for number in range(3)])
        return decided[1:].numpy()

    every = {key: masks(logits) for key, logits in recorder.passes.items()}
    assert not any(torch.isnan(logits).any() for logits in recorder.passes.values())
    num_passes = len(every) // folds
    for fold, region in itertools.product(range(folds), range(2)):
        of_fold = [every[fold, number][region] for number in range(num_passes)]
        expected = [[int((one & other).sum()) for other in of_fold] for one in of_fold]
        np.testing.assert_array_equal(found.within[fold, region], expected)
        probabilities = recorder.folds[fold].sigmoid() if overlap else recorder.folds[fold].softmax(0)
        mask = masks(recorder.folds[fold])[region]
        values = probabilities[region + 1].numpy()
        np.testing.assert_allclose(
            found.confidence[fold, region], [values[mask].sum(), values.sum(), mask.sum()], rtol=1e-4
        )
    means = [masks(recorder.folds[fold]) for fold in range(folds)]
    members = means if folds > 1 else [every[0, number] for number in range(num_passes)]
    for region in range(2):
        expected = [[int((one[region] & other[region]).sum()) for other in means] for one in means]
        np.testing.assert_array_equal(found.between[region], expected)
        for number, member in enumerate(members):
            np.testing.assert_array_equal(found.member_mask(number, region), member[region])
    votes = np.sum(list(every.values()), axis=0)
    if overlap:
        share = np.minimum(votes, len(every) - votes).max(axis=0) / len(every)
    else:
        background = len(every) - votes.sum(axis=0)
        share = 1 - np.maximum(votes.max(axis=0), background) / len(every)
    np.testing.assert_array_equal(found.disagreement, np.round(share * 255))


def test_tiles_that_are_skipped_have_nothing() -> None:
    predictor, shape = predictor_of("3d_fullres"), (16, 32, 32)
    comparison = PassComparison(shape, (1, 2), False, 1)
    list(logit_planes(predictor, torch.zeros(2, *shape), TileOptions(skip_empty=True), comparison))
    found = comparison.result()
    assert not found.members.any() and not found.within.any() and not found.disagreement.any()


def test_pairs_of_empty_masks_say_nothing() -> None:
    masks = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert pairwise_dice(masks @ masks.T) == pytest.approx((2 / 3 + 0 * 4) / 5)
    assert math.isnan(pairwise_dice(np.zeros((3, 3)))) and math.isnan(pairwise_dice(np.array([[5]])))


def test_the_expected_dice_of_a_certain_mask_is_one() -> None:
    assert expected_dice(10, 10, 10) == 1 and expected_dice(5, 5, 10) == pytest.approx(2 / 3)
    assert math.isnan(expected_dice(0, 3, 0))


def test_a_record_is_read_as_it_was_written() -> None:
    region = RegionPasses((0.5, math.nan), (0.25, 0.75), math.nan, (1.0, 0.0), (3, 0))
    record = PassRecord(4, (1.0, 2.0, 3.0), (10.0, 20.0, 30.0), ({"p5": -1.0},), {"a/b": region})
    (read,) = records_of(content_of_records([record]))
    assert repr(read) == repr(record) and read.regions["a/b"].mean_agreement == 0.5
