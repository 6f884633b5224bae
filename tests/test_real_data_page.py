"""``python -m benchmarks.real_data``: its statistics, its figure and its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from study_example import BRATS, COST, brats, content_of, made_up

from benchmarks.real_data.arms import ARMS, MAIN
from benchmarks.real_data.figure import draw, points
from benchmarks.real_data.in_short import TESTED, long_rows, nmf_rows, overview, robustness_rows
from benchmarks.real_data.page import page
from benchmarks.real_data.pieces import ITERATIONS, LONG, SHORT, TIME, pieces
from benchmarks.real_data.results import Results
from benchmarks.real_data.summary import (
    case_means,
    comparison,
    is_above,
    paired,
    patient_means,
    robustness,
    robustness_of_models,
    shown,
)

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "docs" / "measured"


def test_cases_of_one_patient_count_once() -> None:
    scores = {"p0_a": {"r": [0.9, None]}, "p0_b": {"r": [0.7, 0.5]}, "p1_a": {"r": [0.2, None], "s": [0.4, 0.1]}}
    assert case_means(scores) == pytest.approx({"p0_a": 0.9, "p0_b": 0.7, "p1_a": 0.3})
    assert patient_means(case_means(scores), r"(p\d)_") == pytest.approx({"p0": 0.8, "p1": 0.3})
    assert np.isnan(case_means(scores, "s")["p0_a"]) and case_means(scores, metric=1)["p1_a"] == 0.1


def test_only_folds_that_all_arms_have_finished_are_compared() -> None:
    arms = ("default", "unet", "no_nmf")
    content = content_of(*(brats(arm, fold=fold) for arm in arms for fold in (0, 2)), brats("default", fold=3))
    found = comparison(content, "brats_2mm/3d_fullres", SHORT, ITERATIONS)
    assert found is not None and found.folds == (0, 2) and found.num_patients == 4
    # Of a patient, the cases are 0.5 and (with gain 0) 0.45 and 0.52, or 0.1 and 0.05 more for the second one.
    assert found.mean("default") == pytest.approx(np.mean([(0.45 + 0.52) / 2, (0.5 + 0.62) / 2]))
    apart = found.difference("no_nmf", "default")
    assert apart.mean == pytest.approx((0.04 / 2 + 0.04) / 2)
    assert comparison(content, "brats_2mm/3d_fullres", "long", ITERATIONS) is None


def test_at_equal_time_the_baseline_is_that_of_equal_iterations() -> None:
    content = content_of(brats("default", TIME), brats("unet"), brats("unet_ours"), brats("swin"))
    found = comparison(content, "brats_2mm/3d_fullres", SHORT, TIME)
    assert found is not None and list(found.results) == ["default", "unet", "unet_ours"]


def test_robustness_is_the_mean_over_corruptions_of_each_patient() -> None:
    case = {"a": {"r": [0.8, None]}, "b": {"r": [0.4, None]}}
    worse = {"a": {"r": [0.2, None]}, "b": {"r": [0.0, None]}}
    found = robustness({"noise_1": case, "bias_field_1": worse, "bias_field_2": worse}, None)
    assert found.by_kind == pytest.approx({"noise": 0.6, "bias_field": 0.1})
    assert found.by_strength["2"] == pytest.approx((0.1, 0.01))  # of 0.2 and 0.0
    assert found.by_strength["1"][0] == pytest.approx(0.35)
    assert found.patients == pytest.approx({"a": 0.4, "b": 0.4 / 3}) and found.mean == pytest.approx(0.8 / 3)
    assert found.worst == found.worst_complete == pytest.approx(np.percentile([0.8, 0.4, 0.2, 0.0, 0.2, 0.0], 5))
    incomplete = robustness({"noise_1": case, "missing_slices_1": worse}, None)
    assert incomplete.worst < incomplete.worst_complete == pytest.approx(np.percentile([0.8, 0.4], 5))
    assert np.isnan(robustness({"missing_slices_1": worse}, None).worst_complete)


def test_the_low_percentiles_of_two_models_are_compared_on_resampled_patients() -> None:
    """A quarter of the resamples has patient a only, a quarter b only: these set the interval."""
    scores = {"a_0": {"r": [0.9, None]}, "a_1": {"r": [0.7, None]}, "b_0": {"r": [0.5, None]}}
    worse = {"a_0": {"r": [0.8, None]}, "a_1": {"r": [0.6, None]}, "b_0": {"r": [0.1, None]}}
    found, other = (robustness({"noise_1": own, "blur_2": own}, r"(\w)_") for own in (scores, worse))
    assert found.images == {"a": [0.9, 0.9, 0.7, 0.7], "b": [0.5, 0.5]}
    apart = found.difference_of_worst(other)
    of_both, of_b = np.percentile([0.5, 0.5, 0.7, 0.7, 0.9, 0.9], 5), 0.4
    assert apart.mean == pytest.approx(of_both - np.percentile([0.1, 0.1, 0.6, 0.6, 0.8, 0.8], 5))
    assert (apart.low, apart.high) == pytest.approx((0.1, of_b))
    alone = robustness({"noise_1": {"a_0": scores["a_0"]}}, None)
    assert np.isnan(alone.difference_of_worst(alone).low)
    same = found.difference_of_worst(found)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_robustness_is_that_of_the_folds_that_models_share() -> None:
    tested = [brats(*model, fold=fold, corrupted=True) for model in TESTED for fold in (0, 2)]
    others = [brats("no_nmf", TIME, corrupted=True), brats("no_nmf", TIME)]
    content = content_of(*tested, *(piece.training for piece in tested), *others)
    found = robustness_of_models(content, "brats_2mm/3d_fullres", TESTED)
    assert {(own.folds, tuple(own.patients)) for own in found.values()} == {((0, 2), ("p0", "p1", "p4", "p5"))}
    default = found["default", TIME]
    assert default.mean == pytest.approx(np.mean(list(default.patients.values()))) == default.clean
    text = page(content, "figure.png")
    both, of_all = (text.partition(f"short budget, {folds}, on corrupted")[2] for folds in ("folds 0, 2", "fold 0"))
    assert both.count("\n| Factorizer, no NMF, equal training time ") == 1 and both.endswith(of_all)
    del content["pieces"][brats("unet", fold=2).key]
    assert {own.folds for own in robustness_of_models(content, "brats_2mm/3d_fullres", TESTED).values()} == {(0,)}


def test_robustness_and_the_gain_of_the_nmf_have_a_row_for_each_data_set() -> None:
    default, unet = brats("default", TIME, corrupted=True), brats("unet", corrupted=True)
    content = content_of(default, unet, default.training, unet.training, brats("default"), brats("no_nmf"))
    _, row = robustness_rows(content)
    assert row[:5] == ["BraTS, 2 mm", "0", "2", "0.530", "0.522"] and row[5].startswith("-0.008 [")
    worst = [float(cell) for cell in row[6:8]]
    assert row[8].startswith(f"{worst[1] - worst[0]:+.3f} [")
    del content["pieces"][unet.key]
    assert len(robustness_rows(content)) == 1
    header, first = nmf_rows(content)
    assert header[1] == "default minus no NMF" and first[0] == "BraTS, 2 mm, equal iterations"
    assert first[1].startswith("-0.03") and first[1].endswith("] (2)") and first[2:] == ["", ""]
    for arm in ("default", "no_nmf"):
        content["pieces"][brats(arm, fold=2).key] = made_up(brats(arm, fold=2))
    content["pieces"][brats("everywhere").key] = made_up(brats("everywhere"))
    _, first = nmf_rows(content)
    assert [cell[-3:] for cell in first[1:]] == ["(4)", "(2)", "(2)"]


@pytest.mark.parametrize(
    ("gains", "is_ahead"), [([0.1] * 5, False), ([0.1] * 6, True), ([0.1] * 3 + [0.5] * 4 + [-0.21], False)]
)
def test_ahead_means_a_small_p_value_too(gains: list[float], is_ahead: bool) -> None:
    values = {str(number): gain + number / 100 for number, gain in enumerate(gains)}
    base = {str(number): 0.0 for number in range(len(gains))}
    assert paired(values, base).low > 0
    assert is_above(values, base) == is_ahead


def test_the_overview_marks_what_is_ahead_of_both_unets() -> None:
    """The default has no gain here, the U-Nets +0.01 and +0.02: so it is behind until the U-Nets are made worse."""
    planned = [brats("default"), brats("default", TIME), brats("unet"), brats("unet_ours")]
    content = content_of(*planned)
    header, row = overview(content)
    assert row == ["BraTS, 2 mm", "150", "0", "2", "0.530", "0.537", "0.522", "0.522"] and len(header) == len(row)
    for piece in planned[2:]:
        for regions in content["pieces"][piece.key]["scores"].values():
            regions["whole"][0] -= 0.1
    assert overview(content)[1][6:] == ["0.522"] * 2  # of two patients
    further = [replace(piece, fold=fold) for piece in planned for fold in (2, 3)]
    more = content_of(*planned, *further)
    for piece in (*planned[2:], *further[4:]):
        for regions in more["pieces"][piece.key]["scores"].values():
            regions["whole"][0] -= 0.1
    assert overview(more)[1][6:] == ["**0.522**"] * 2  # of six
    content["pieces"] |= {piece.key: made_up(piece) for piece in (brats("unet", fold=2), brats("default", fold=2))}
    content["pieces"] |= {brats("unet_ours", fold=2).key: made_up(brats("unet_ours", fold=2))}
    assert overview(content)[1][2] == "0"  # equal time has no other fold
    del content["pieces"][brats("unet_ours").key]
    assert overview(content) == [header]


def test_long_trainings_have_a_row_with_the_unets_that_were_trained_as_long() -> None:
    long = [replace(brats(*model), budget=LONG) for model in (("default", TIME), ("unet", ITERATIONS))]
    content = content_of(*long)
    content["pieces"][long[0].key]["seconds"], content["pieces"][long[1].key]["seconds"] = 600, 1500
    header, row = long_rows(content)
    assert row[:4] == ["BraTS, 2 mm", "150", "0", "2"] and row[4:7] == ["0.530", "–", "0.522"]
    assert row[7].startswith("-0.008 [") and row[8] == "25, 10" and len(header) == len(row)
    ours = replace(brats("unet_ours"), budget=LONG)
    content["pieces"][ours.key] = {**made_up(ours), "seconds": 3600}
    _, row = long_rows(content)
    assert row[4:7] == ["0.530", "0.537", "0.522"] and row[8] == "25, 60, 10"
    del content["pieces"][long[1].key]
    assert long_rows(content) == [header]


def test_the_page_says_what_was_compared_and_what_its_number_of_patients_can_show() -> None:
    planned = [piece for piece in pieces([BRATS], list(ARMS), {"brats_2mm/3d_fullres": COST}) if piece.budget == SHORT]
    few = page(content_of(*(piece for piece in planned if piece.fold == 0)), "p.png")
    assert "2 patients, fold 0." in few and "With 2 patients no test reaches a p-value of 0.05" in few
    assert "### Seeds" in few and "### Corrupted images" in few
    many = page(content_of(*planned), "p.png")
    assert "8 patients, folds 0, 2, 3, 4." in many and "detects a true mean difference of 0." in many
    assert "Factorizer, NMF everywhere minus Factorizer, no NMF: −" in many.replace("-", "−")
    (row,) = [line for line in few.split("### ")[1].splitlines() if line.startswith("| nnU-Net's U-Net, our")]
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert cells[:7] == ["150", "4.40", "1.0", "1.00 M", "0.580", "0.400", "0.537"]


def test_what_a_number_of_patients_finds_is_the_power_of_a_paired_t_test() -> None:
    content = content_of(*(brats(arm, fold=fold) for arm in ("default", "unet") for fold in (0, 2, 3, 4)))
    rng = np.random.default_rng(0)
    for fold in (0, 2, 3, 4):
        for regions in content["pieces"][brats("unet", fold=fold).key]["scores"].values():
            regions["whole"][0] += float(rng.normal(0, 0.1))
    found = comparison(content, "brats_2mm/3d_fullres", SHORT, ITERATIONS)
    assert found is not None
    own, base = (found._by_patient(arm) for arm in ("default", "unet"))
    spread = np.std([own[patient] - base[patient] for patient in own], ddof=1)
    drawn = rng.normal(found.detectable("default", "unet"), spread, (20000, len(own)))
    assert np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.05)


def test_arms_that_have_fewer_folds_do_not_take_folds_from_the_main_ones() -> None:
    content = content_of(*(brats(arm, fold=fold) for arm in MAIN for fold in (0, 2)), brats("no_nmf"))
    main, every, _ = page(content, "p.png").split("### ")[1:]
    first_lines = [part.partition("\n")[0] for part in (main, every)]
    assert first_lines == [f"Short budget, equal iterations, {folds}" for folds in ("folds 0, 2", "fold 0")]
    assert "no NMF" not in main and "4 patients" in main and "no NMF" in every and "2 patients" in every


def test_the_time_of_a_training_is_that_of_the_folds_of_the_table() -> None:
    content = content_of(*(brats(arm, fold=fold) for arm in MAIN for fold in (0, 2)), brats("no_nmf"))
    content["pieces"][brats("default", fold=2).key]["seconds"] = 180.0
    main, every, _ = page(content, "p.png").split("### ")[1:]
    minutes = [
        next(line.split("|")[4].strip() for line in part.splitlines() if line.startswith("| Factorizer, default"))
        for part in (main, every)
    ]
    assert minutes == ["2.0", "1.0"]


def test_an_arm_on_another_fold_takes_no_table_away() -> None:
    content = content_of(brats("default"), brats("unet"), brats("no_nmf", fold=2))
    found = comparison(content, "brats_2mm/3d_fullres", SHORT, ITERATIONS)
    assert found is not None and list(found.results) == ["default", "unet"] and found.folds == (0,)
    tested = [brats(*model, fold=fold, corrupted=True) for model, fold in zip(TESTED, (0, 2), strict=True)]
    content = content_of(*tested, *(piece.training for piece in tested))
    assert list(robustness_of_models(content, "brats_2mm/3d_fullres", TESTED)) == [TESTED[0]]
    assert len(robustness_rows(content)) == 1


def test_every_training_of_fold_0_is_a_point_of_the_figure(tmp_path: Path) -> None:
    content = content_of(brats("swin"), brats("swin", TIME, budget="long"), brats("swin", fold=1))
    content["pieces"][brats("swin", TIME, budget="long").key]["iterations"] = 2200
    short, long = points(content, "brats_2mm/3d_fullres", "swin")
    assert (short.minutes, short.equal, long.minutes, long.equal) == (150 * 3 / 60, ITERATIONS, 2200 * 3 / 60, TIME)
    assert short.dice == pytest.approx(0.5675)
    draw(content, tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 10_000


def test_a_difference_without_interval_has_none() -> None:
    content = content_of(brats("default"), brats("unet"))
    content["setups"]["brats_2mm/3d_fullres"]["patient"] = r"(p)"  # all cases are one's
    found = comparison(content, "brats_2mm/3d_fullres", SHORT, ITERATIONS)
    assert found is not None and shown(found.difference("unet", "default")) == "+0.008"


def test_the_committed_page_is_that_of_the_committed_results() -> None:
    results = Results(MEASURED / "real_data.json")
    assert (MEASURED / "real_data.md").read_text(encoding="utf-8") == page(results.read(), "real_data.png")
