"""What is found in one case, drawn by hand: each kind of error, and what its correction gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from factorizer_nnunet.imaging.grid import Grid
from factorizer_nnunet.label_check.disagreement import proposals_of
from factorizer_nnunet.label_check.finding import Finding, Kind, Proposal
from factorizer_nnunet.label_check.opinion import Opinion, confidence_of
from factorizer_nnunet.label_check.ranking import ranked
from factorizer_nnunet.nnunet.dataset_json import DatasetJson

SHAPE = (30, 20, 10)
IDENTITY = tuple(np.eye(3).ravel())
GRID = Grid(SHAPE, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
REGIONS = {"edema": (1,), "core": (2,)}


def _lesions() -> np.ndarray:
    """A lesion of class 1 with a core of class 2, and a smaller one of class 1 far from it."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:12, 4:12, 2:8] = 1
    labels[6:9, 6:10, 4:6] = 2
    labels[20:24, 13:17, 3:6] = 1
    return labels


def _proposals(label: np.ndarray, prediction: np.ndarray, grid: Grid = GRID) -> list[Proposal]:
    return proposals_of("case", Opinion(label, prediction, None, 0.001, REGIONS), grid)


def _corrected(label: np.ndarray, proposals: list[Proposal]) -> np.ndarray:
    result = label.copy()
    for one in proposals:
        result.reshape(-1)[one.places] = one.values
    return result


def test_labels_that_agree_have_no_findings() -> None:
    assert not _proposals(_lesions(), _lesions())
    assert not _proposals(np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8))


def test_a_removed_lesion_is_missing_and_comes_back() -> None:
    label = _lesions()
    label[20:24] = 0
    (one,) = found = _proposals(label, _lesions())
    assert (one.finding.kind, one.finding.where, one.finding.voxels) == (Kind.MISSING, "edema", 48)
    assert one.finding.volume_ml == pytest.approx(0.048)
    assert np.array_equal(_corrected(label, found), _lesions())
    assert _lesions()[one.finding.centre] == 1


def test_a_lesion_of_two_classes_is_one_finding() -> None:
    label = _lesions()
    label[:15] = 0
    (one,) = _proposals(label, _lesions())
    assert (one.finding.kind, one.finding.where) == (Kind.MISSING, "edema, core")


def test_a_lesion_only_in_the_label_and_an_empty_label() -> None:
    prediction = _lesions()
    prediction[20:24] = 0
    (one,) = found = _proposals(_lesions(), prediction)
    assert one.finding.kind is Kind.EXTRA
    assert np.array_equal(_corrected(_lesions(), found), prediction)
    assert {one.finding.kind for one in _proposals(np.zeros(SHAPE, np.uint8), _lesions())} == {Kind.EMPTY}


def test_exchanged_classes_are_one_finding_whose_correction_keeps_the_outlines() -> None:
    label = np.array([0, 2, 1], np.uint8)[_lesions()]
    prediction = _lesions()
    prediction[4] = 0  # the model's outline differs from the expert's
    first, *_ = found = _proposals(label, prediction)
    assert (first.finding.kind, first.finding.where) == (Kind.SWAPPED, "edema and core")
    assert np.array_equal(_corrected(label, found[:1]), _lesions())


@pytest.mark.parametrize("names", [[0, 2, 1, 3], [0, 2, 3, 1]])
def test_exchanged_parts_of_an_organ_are_not_a_mirrored_label(names: list[int]) -> None:
    """Front, middle and back of an organ: mirroring brings exchanged names nearer to where they should be."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[4:20, 2:7, 2:9], truth[4:20, 7:12, 2:8], truth[5:20, 12:17, 2:9] = 1, 2, 3
    label = np.array(names, np.uint8)[truth]
    found = proposals_of("case", Opinion(label, truth, None, 0.001, {"a": [1], "b": [2], "c": [3]}), GRID)
    assert found and {one.finding.kind for one in found} == {Kind.SWAPPED}
    assert np.array_equal(_corrected(label, found), truth)


def test_one_lesion_of_another_class() -> None:
    label = _lesions()
    label[20:24][label[20:24] > 0] = 2
    (one,) = found = _proposals(label, _lesions())
    assert (one.finding.kind, one.finding.voxels) == (Kind.SWAPPED, 48)
    assert np.array_equal(_corrected(label, found), _lesions())


def test_a_structure_on_the_other_side_of_the_image_is_shifted_and_not_mirrored() -> None:
    truth, label = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    truth[3:10, 4:8, 2:8], truth[3:6, 8:12, 2:8] = 1, 1  # an L, which mirroring would turn
    label[12:19, 4:8, 2:8], label[12:15, 8:12, 2:8] = 1, 1
    assert {one.finding.kind for one in _proposals(label, truth)} == {Kind.MISSING, Kind.EXTRA}


@pytest.mark.parametrize("seed", range(20))
def test_a_mirrored_label_is_one_for_a_model_that_errs(seed: int) -> None:
    """Blobs with a core off the middle of the image, and a model whose borders are elsewhere."""
    rng = np.random.default_rng(seed)
    shape = (48, 40, 24)
    centre = np.array([n * share for n, share in zip(shape, (rng.uniform(0.2, 0.36), 0.5, 0.5), strict=True)])
    away = np.sqrt(sum(((i - c) / r) ** 2 for i, c, r in zip(np.indices(shape), centre, (7, 8, 6), strict=True)))
    away = away + 0.8 * gaussian_filter(rng.standard_normal(shape), 2) / 0.09 * 0.3
    seen = away + 0.25 * gaussian_filter(rng.standard_normal(shape), 1.5) / 0.12
    truth, prediction = ((one < 1).astype(np.uint8) + (one < 0.5) for one in (away, seen))
    opinion = Opinion(truth[::-1].copy(), prediction, None, 0.001, {"edge": [1], "core": [2]})
    found = proposals_of("case", opinion, Grid(shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), GRID.direction))
    assert [one.finding.kind for one in found] == [Kind.FLIPPED]


@pytest.mark.parametrize(
    ("axes", "where"), [((0,), "left-right"), ((2,), "up-down"), ((0, 1), "left-right, front-back")]
)
def test_a_mirrored_label_is_the_only_finding_and_turned_back(axes: tuple[int, ...], where: str) -> None:
    truth = _lesions()
    truth[:, :, 8:] = 0
    truth[20:24, 13:17, 8:10] = truth[0:3, 0:3, 0:2] = 1
    label = np.flip(truth, axes).copy()
    if axes == (2,):  # hardly changes this label: it is moved to one end first
        truth, label = np.roll(truth, -2, 2), np.flip(np.roll(truth, -2, 2), 2).copy()
    (one,) = found = _proposals(label, truth)
    assert (one.finding.kind, one.finding.where) == (Kind.FLIPPED, where)
    assert np.array_equal(_corrected(label, found), truth)


def test_the_axis_of_a_mirrored_label_comes_from_the_grid() -> None:
    turned = (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)  # the first voxel axis runs from front to back
    (one,) = _proposals(_lesions()[::-1].copy(), _lesions(), Grid(SHAPE, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), turned))
    assert one.finding.where == "front-back"


def test_shifted_and_other_borders() -> None:
    truth = np.zeros(SHAPE, np.uint8)
    truth[4:12, 4:12, 2:8] = 1
    shifted = np.roll(truth, (3, 2), (0, 1))
    (one,) = found = _proposals(shifted, truth)
    assert one.finding.kind is Kind.SHIFTED
    assert np.array_equal(_corrected(shifted, found), truth)
    small = truth.copy()
    small[4:6] = 0
    (one,) = _proposals(small, truth)
    assert (one.finding.kind, one.finding.voxels) == (Kind.BORDER, 2 * 8 * 6)


@pytest.mark.parametrize(
    ("labels", "heads"),
    [
        ({"background": 0, "edema": 1, "core": 2}, ("background", 1, 2)),
        ({"core": 2, "background": 0, "edema": 1}, ("background", 1, 2)),  # nnU-Net orders classes by value
        ({"background": 0, "all": [1, 2], "core": 2}, ((1, 2), 2)),  # and regions as they are listed
    ],
)
def test_probabilities_belong_to_their_regions(labels: dict[str, object], heads: tuple[object, ...]) -> None:
    reference, prediction = np.zeros((2, 2, 1), int), np.array([[[0], [1]], [[2], [1]]])
    reference[0, 1, 0] = 2
    values = {"background": 0.2, 1: 0.7, 2: 0.9, (1, 2): 0.8}
    probabilities = [np.full((2, 2, 1), values[head], np.float32) for head in heads]
    found = confidence_of(reference, prediction, probabilities, DatasetJson({"labels": labels}))
    of_labels, of_regions = [[0.0, (0.7 + 0.1) / 2], [0.9, 0.7]], [[0.0, 0.1], [(0.8 + 0.9) / 2, 0.8]]
    expected = of_labels if len(heads) == 3 else of_regions
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-6)


def test_probabilities_of_another_prediction_are_refused() -> None:
    labels = DatasetJson({"labels": {"background": 0, "edema": 1}})
    prediction = np.ones((4, 4, 1), int)
    other = [np.full((4, 4, 1), value, np.float32) for value in (0.9, 0.1)]
    with pytest.raises(ValueError, match="another prediction"):
        confidence_of(np.zeros((4, 4, 1), int), prediction, other, labels)
    with pytest.raises(ValueError, match="classes"):
        confidence_of(np.zeros((4, 4, 1), int), prediction, other[:1], labels)
    with pytest.raises(ValueError, match="shape"):
        confidence_of(np.zeros((4, 4, 2), int), np.ones((4, 4, 2), int), other, labels)


def test_an_unsure_model_contradicts_less() -> None:
    label, prediction = np.zeros((2, 2, 2, 1), int), np.ones((2, 2, 1), int)
    unsure, sure = (Opinion(label[0], prediction, np.full((2, 2, 1), p), 0.001, REGIONS) for p in (0.6, 1.0))
    places = np.arange(4)
    assert (unsure.margin(places), sure.margin(places)) == (pytest.approx(0.8), 4)
    assert unsure.probability(places) == pytest.approx(0.6)


def test_unusual_contradictions_come_first() -> None:
    def finding(case: str, kind: Kind, evidence: float, where: str = "edema") -> Finding:
        return Finding(case, kind, where, 1.0, 0.9, evidence, (0, 0, 0), 100)

    usual = [finding(f"c{n}", Kind.BORDER, 0.2) for n in range(18)]
    found = ranked([*usual, finding("large", Kind.BORDER, 0.6), finding("new", Kind.MISSING, 2.0)], range(20))
    assert {one.case for one in found[:2]} == {"large", "new"}
    assert all(0 < one.score < 1 for one in found)


def test_keys_differ_by_case_and_place_and_survive_spreadsheets() -> None:
    keys = {
        Finding(case, Kind.MISSING, "a", 1.0, 0.9, 1.0, centre, 5).key
        for case in ("007", "7")
        for centre in ((1, 2, 3), (1, 2, 4))
    }
    assert len(keys) == 4
    assert all(key.startswith("f_") and key == key.lower() for key in keys)
