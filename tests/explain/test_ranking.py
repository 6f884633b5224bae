"""AUC, correlation, deletion and order, against slower computations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.explain.components import check_heads, find_layers, select_layers
from factorizer_nnunet.explain.deletion import class_changes
from factorizer_nnunet.explain.ranking import best_first, bin_numbers, label_histograms, separations
from factorizer_nnunet.network import Factorizer

NETWORK = {"features_per_stage": [8, 16, 16], "strides": [[1, 1, 1], [2, 2, 2], [1, 2, 2]]}


def test_auc_and_correlation_equal_scipys_and_numpys() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, (10, 11, 12))
    values = draw.integers(0, 50, labels.shape) + 20 * (labels == 2) - 9.0 * (labels == 3)
    found = separations(label_histograms(bin_numbers(values), labels), {"two": (2,), "low": (1, 3), "none": (7,)})
    for name, members in (("two", (2,)), ("low", (1, 3))):
        mask = np.isin(labels, members)
        expected = mannwhitneyu(values[mask], values[~mask]).statistic / mask.sum() / (~mask).sum()
        assert found[name].auc == pytest.approx(expected, abs=1e-3)
        assert found[name].correlation == pytest.approx(np.corrcoef(values.ravel(), mask.ravel())[0, 1], abs=1e-3)
        assert found[name].avoids == (expected < 0.5)
    assert found["none"].auc is None and found["none"].strength is None


def test_the_memory_layout_does_not_matter() -> None:
    draw = np.random.default_rng(0)
    labels, values = draw.integers(0, 2, (3, 4, 5)), draw.integers(0, 9, (3, 4, 5))
    expected = label_histograms(values, labels)
    np.testing.assert_array_equal(label_histograms(np.asfortranarray(values), labels), expected)
    moved = np.ascontiguousarray(values.transpose(1, 2, 0)).transpose(2, 0, 1)
    np.testing.assert_array_equal(label_histograms(moved, np.asfortranarray(labels)), expected)


def test_a_constant_map_separates_nothing() -> None:
    labels = np.arange(8) % 2
    found = separations(label_histograms(bin_numbers(np.zeros(8)), labels), {"odd": (1,)})["odd"]
    assert (found.auc, found.correlation) == (0.5, None)


def test_the_best_come_first_and_missing_scores_last() -> None:
    assert best_first([0.1, None, 0.4, 0.4]) == [2, 3, 0, 1]


def test_a_deleted_head_reconstructs_nothing_and_is_restored() -> None:
    network = Factorizer(1, 2, **NETWORK).eval()
    (layer, *_) = select_layers(find_layers(network, Path("model")), ["encoder-2"])
    mixer, x = layer.mixer, torch.randn(1, 4, 4, 4, 16)
    before = mixer.out_proj.weight.clone()
    with torch.no_grad():
        without = mixer.reconstruct(mixer.nonnegative(x))
        without[..., 8:] = 0
        expected = mixer.out_proj(without)
        with mixer.without_head(1):
            torch.testing.assert_close(mixer(x), expected)
    assert torch.equal(mixer.out_proj.weight, before)


def test_class_changes() -> None:
    before, after, truth = np.zeros(10, int), np.zeros(10, int), np.zeros(10, int)
    before[:4], after[:2], truth[:4] = 1, 1, 1
    found = class_changes(before, after, truth, {"one": (1,), "two": (2,)}, voxel_mm3=500.0)
    assert found["one"].dice_with_prediction == pytest.approx(2 * 2 / 6)
    assert found["one"].volume_change_ml == -1.0
    assert found["one"].dice_change == pytest.approx(2 * 2 / 6 - 1)
    assert (found["two"].dice_with_prediction, found["two"].dice_change) == (None, None)


def test_voxels_with_the_ignore_label_do_not_count() -> None:
    labels, binned = np.array([0, 1, 1, 7]), np.array([0, 5, 9, 9], np.uint16)
    histograms = label_histograms(binned, labels, ignored=7)
    assert histograms.sum() == 3 and histograms[1, 9] == 1
    assert label_histograms(binned, labels).sum() == 4
    assert label_histograms(binned[:3], labels[:3], ignored=7).sum() == 3
    found = class_changes(np.array([1, 1, 0, 1]), np.array([1, 0, 0, 1]), labels, {"one": (1,)}, 1.0, ignored=7)
    assert found["one"].dice_change == pytest.approx(2 * 0 / 3 - 2 * 1 / 4)


def test_layers_have_names_strides_and_heads() -> None:
    layers = find_layers(Factorizer(1, 2, **NETWORK, n_blocks_per_stage=[1, 2, 1]), Path("model"))
    assert [layer.name for layer in layers] == [
        "encoder-1", "encoder-2-block-1", "encoder-2-block-2", "encoder-3", "decoder-1", "decoder-2",
    ]  # fmt: skip
    assert [layer.stride for layer in layers if layer.name.endswith("-3")] == [(2, 4, 4)]
    assert [layer.name for layer in select_layers(layers, ["decoder-1", "encoder-2"])] == [
        "encoder-2-block-1", "encoder-2-block-2", "decoder-1",
    ]  # fmt: skip
    found = layers[3].components()
    assert [(one.name, one.channels) for one in found] == [
        ("encoder-3_head-01", (0, 8)),
        ("encoder-3_head-02", (8, 16)),
    ]
    with pytest.raises(UserError, match="--stage decoder-3: this stage has no NMF. Stages with an NMF: encoder-1, "):
        select_layers(layers, ["decoder-3"])
    with pytest.raises(UserError, match="--head 3: encoder-3 has heads 1 to 2"):
        check_heads(layers[3:4], [3])


def test_other_networks_are_refused() -> None:
    with pytest.raises(UserError, match="model contains a Linear, but only a Factorizer has components"):
        find_layers(torch.nn.Linear(1, 1), Path("model"))
    with pytest.raises(UserError, match="no NMF in any stage"):
        find_layers(Factorizer(1, 2, **NETWORK, nmf_stages=[False] * 3), Path("model"))
