"""Cases judged from the records of their passes: doubt, reasons, and what is unlike the images of the training."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from factorizer_nnunet.calibration.calibration_file import read_calibration, write_calibration
from factorizer_nnunet.calibration.dice_model import MIN_CASES
from factorizer_nnunet.calibration.fit import OutOfFoldCase, calibration_of
from factorizer_nnunet.calibration.image_distance import ImageDistance, distance_of
from factorizer_nnunet.calibration.logit_scaling import LogitScaling, logit_counts
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.imaging.statistics import channel_statistics
from factorizer_nnunet.nnunet.pass_record import PassRecord, RegionPasses
from factorizer_nnunet.nnunet.training_images import TrainingImages, training_images
from factorizer_nnunet.quality.assess import Judge, assess, of_passes

SETTINGS = {"use_mirroring": True, "tile_step_size": 0.5, "num_iters": None, "num_shifts": None}


def record(agreement: float, folds: float = math.nan, volumes: tuple[float, ...] = (2.0, 2.1)) -> PassRecord:
    region = RegionPasses((agreement,), (agreement,), folds, volumes, tuple(1 for _ in volumes))
    statistics = {"p5": -1.0, "p50": 0.0, "p95": 1.0, "noise": 0.1}
    return PassRecord(8, (1.0, 1.0, 3.0), (90.0, 80.0, 60.0), (statistics,), {"lesion": region})


EMPTY = record(math.nan, volumes=(0.0, 0.0))


def out_of_fold(number: int, passes: PassRecord, dice: float | None, present: bool = True) -> OutOfFoldCase:
    rng = np.random.default_rng(number)
    p = rng.random(200)
    counts = {"lesion": logit_counts(p, rng.random(200) < p)}
    regions = frozenset({"lesion"} if present else ())
    return OutOfFoldCase(f"c{number}", str(number % 2), {"lesion": dice}, regions, passes, counts)


def cases(count: int) -> list[OutOfFoldCase]:
    rng = np.random.default_rng(0)
    agreements = np.clip(rng.normal(0.85, 0.08, count), 0, 1)
    return [out_of_fold(n, record(float(a)), float(0.95 * a)) for n, a in enumerate(agreements)]


def judge(found: list[OutOfFoldCase]) -> Judge:
    calibration = calibration_of(found, {"0": "a", "1": "b"}, SETTINGS)
    return Judge(Path("model"), calibration, "", TrainingImages(), ("T1",))


def test_lower_agreement_is_a_lower_estimate_and_more_doubt() -> None:
    own = judge(cases(40))
    good, bad = (assess("x", [record(value)], [own]) for value in (0.9, 0.3))
    assert good.regions["lesion"].estimate is not None and bad.regions["lesion"].estimate is not None
    assert good.regions["lesion"].estimate.dice == pytest.approx(0.855, abs=0.03)
    assert bad.doubt > 0.6 and good.doubt < 0.2 and not good.flags
    assert any("estimated Dice" in flag for flag in bad.flags)


def test_folds_that_disagree_raise_the_doubt_but_not_the_estimate() -> None:
    own = judge(cases(40))
    alike, unlike = (assess("x", [record(0.9, folds)], [own]) for folds in (0.9, 0.2))
    assert alike.regions["lesion"].estimate == unlike.regions["lesion"].estimate
    assert unlike.doubt == pytest.approx(0.8) and any(
        "folds agree with a Dice of 0.20" in flag for flag in unlike.flags
    )


def test_a_region_that_is_not_found_is_as_doubtful_as_it_was_before() -> None:
    usual = judge(cases(40))
    assert assess("x", [EMPTY], [usual]).doubt == 1, "it was there in all cases"
    empty = [out_of_fold(100 + n, EMPTY, None if n < 18 else 0.0, present=n >= 18) for n in range(20)]
    seen = judge([*cases(40), *empty])
    doubt = assess("x", [EMPTY], [seen]).doubt
    assert doubt == pytest.approx((2 + 42 / 60) / 21)
    (flag,) = assess("x", [EMPTY], [seen]).flags
    assert flag == "lesion: not found (of 20 out-of-fold cases in which it was not found, 2 have it)"


def test_without_calibration_nothing_speaks_for_a_region_that_is_not_found() -> None:
    own = Judge(Path("model"), None, "not calibrated", TrainingImages(), ("T1",))
    found = assess("x", [EMPTY], [own])
    assert math.isnan(found.doubt) and found.flags == ["lesion: not found"]
    assert assess("x", [record(0.9)], [own]).doubt > 0 and assess("x", [EMPTY], [judge(cases(40))]).doubt == 1


def test_without_calibration_passes_and_folds_that_disagree_are_reasons_to_look() -> None:
    own = Judge(Path("model"), None, "not calibrated", TrainingImages(), ("T1",))
    assert assess("x", [record(0.9, 0.9)], [own]).flags == []
    assert assess("x", [record(0.6, 0.9)], [own]).flags == ["lesion: mirrored passes agree with a Dice of 0.60 only"]
    assert assess("x", [record(0.9, 0.5)], [own]).flags == ["lesion: folds agree with a Dice of 0.50 only"]


def test_a_single_pass_of_a_single_fold_is_said_to_have_nothing_to_compare() -> None:
    own = replace(judge(cases(40)), folds=("0",))
    single = replace(record(0.9), num_passes=1)
    assert any("predicted each case once" in note for note in of_passes(own, [single, single]).notes)
    for folds, passes in ((("0",), record(0.9)), (("0", "1"), single)):
        assert of_passes(replace(own, folds=folds), [passes]).notes == []


def test_few_cases_give_raw_agreement_and_say_so() -> None:
    own = judge(cases(MIN_CASES - 1))
    found = assess("x", [record(0.7)], [own]).regions["lesion"]
    assert found.estimate is None and found.doubt == pytest.approx(0.3)
    assert f"lesion ({MIN_CASES - 1})" in own.note and "raw agreement only" in own.note
    assert judge(cases(MIN_CASES)).note == ""


def test_probabilities_are_calibrated_only_where_other_folds_gain_by_it() -> None:
    """Folds that are wrong in the same way are; folds that are wrong in opposite ways stay as they are."""
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    too_low, too_high = (logit_counts(p, rng.random(p.size) < p**power) for power in (0.5, 2.0))
    for counts, calibrated in (((too_low, too_low), True), ((too_low, too_high), False)):
        pair = [replace(one, counts={"lesion": own}) for one, own in zip(cases(2), counts, strict=True)]
        found = calibration_of(pair, {"0": "a", "1": "b"}, SETTINGS).outputs["lesion"]
        assert (found.scaling != LogitScaling()) == (found.after.ece < found.before.ece / 2) == calibrated
        assert calibrated or found.after == found.before


def test_volumes_and_lesions_that_differ_are_named() -> None:
    own = judge(cases(40))
    region = replace(record(0.9).regions["lesion"], volumes_ml=(1.0, 3.0), lesions=(1, 9))
    flags = assess("x", [replace(record(0.9), regions={"lesion": region})], [own]).flags
    assert "lesion: volume from 1 to 3 ml" in flags and "lesion: 1 to 9 lesions" in flags


def test_estimates_of_several_models_are_averaged() -> None:
    own = judge(cases(40))
    single = [assess("x", [record(value)], [own]).regions["lesion"].estimate for value in (0.9, 0.7)]
    both = assess("x", [record(0.9), record(0.7)], [own, own]).regions["lesion"].estimate
    assert both is not None and both.dice == pytest.approx(np.mean([one.dice for one in single if one is not None]))


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = calibration_of([*cases(30), out_of_fold(50, EMPTY, None, False)], {"0": "a", "1": "b"}, SETTINGS)
    write_calibration(found, tmp_path)
    assert repr(read_calibration(tmp_path)) == repr(found)
    assert found.mismatch({"0": "a", "3": "x"}, SETTINGS) is None
    assert "fold 0 has been trained further" in str(found.mismatch({"0": "x"}, SETTINGS))
    assert "num_iters was None, is 2" in str(found.mismatch({"0": "a"}, {**SETTINGS, "num_iters": 2}))
    assert read_calibration(tmp_path / "elsewhere") is None


def test_images_unlike_the_training_are_named(tmp_path: Path) -> None:
    fingerprint = {"spacings": [[1, 1, 3], [1, 1.2, 3]], "shapes_after_crop": [[90, 80, 20], [100, 80, 25]]}
    (tmp_path / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    training = training_images(tmp_path)
    usual = [{"p5": (-1.0, 0.1), "p50": (0.0, 0.2), "p95": (1.0, 0.1), "noise": (math.log(0.1), 0.1)}]
    assert distance_of(record(0.9), training, usual, ["T1"]).reasons == ()
    coarse = replace(record(0.9), spacing_mm=(2.0, 1.0, 3.0), size_mm=(300.0, 80.0, 60.0))
    reasons = distance_of(coarse, training, usual, ["T1"]).reasons
    assert reasons[0].startswith("voxels of 2 × 1 × 3 mm, in the training 1 × 1 to 1.2 × 3 mm")
    assert reasons[1].startswith("an extent without empty borders of 300 × 80 × 60 mm")
    noisy = replace(record(0.9), channels=({**record(0.9).channels[0], "noise": 0.5},))
    found = distance_of(noisy, training, usual, ["T1"])
    assert found.deviations == pytest.approx(math.log(5) / 0.1) and found.reasons[0].startswith(
        "the noise of T1 is 16 standard deviations"
    )
    assert math.isnan(distance_of(noisy, TrainingImages(), [], ["T1"]).deviations)
    assert training_images(tmp_path / "elsewhere") == TrainingImages()


def test_statistics_see_noise_blur_and_empty_slices() -> None:
    rng = np.random.default_rng(0)
    smooth = np.sin(np.linspace(0, 6, 40))[:, None, None] * np.ones((40, 30, 20)) + np.linspace(0, 1, 20)
    noisy = smooth + 0.3 * rng.standard_normal(smooth.shape)
    assert channel_statistics(noisy)["noise"] == pytest.approx(0.3, rel=0.1)
    assert channel_statistics(noisy)["sharpness"] > 2 * channel_statistics(smooth)["sharpness"]
    noisy[10:20] = 0
    assert channel_statistics(noisy)["flat"] == pytest.approx(0.25)
    assert channel_statistics(np.zeros((4, 4, 4)))["noise"] == 0


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("regions", "lesion", "model", "slopes"), [1.0]),
        (("regions", "lesion", "model", "slopes"), [1.0, -0.5]),
        (("regions", "lesion", "model", "offset"), None),
        (("regions", "lesion", "model", "radius"), -5),
        (("regions", "lesion", "median_dice"), 17),
        (("outputs", "lesion", "scaling", "temperature"), -1),
    ],
)
def test_a_calibration_with_impossible_numbers_is_refused(
    tmp_path: Path, place: tuple[str, ...], value: object
) -> None:
    write_calibration(calibration_of(cases(40), {"0": "a", "1": "b"}, SETTINGS), tmp_path)
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text())
    entry = content
    for key in place[:-1]:
        entry = entry[key]
    entry[place[-1]] = value
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is not as calibrate writes it"):
        read_calibration(tmp_path)


def test_warnings_about_the_images_are_reasons_to_look() -> None:
    own = replace(judge(cases(40)), training=TrainingImages(((1.0, 1.0),) * 3))
    unlike = assess("x", [record(0.9)], [own]).image.reasons
    assert unlike and assess("x", [record(0.9)], [own], [f"it is: {unlike[0]}"]).image.reasons == (
        f"it is: {unlike[0]}",
    )
    assert assess("x", [record(0.9)], [own], ["a"]).image.reasons == ("a", *unlike)


def test_empty_slices_and_unusual_intensities_raise_the_doubt() -> None:
    found = cases(40)
    for one in found:
        one.record.channels[0].update(flat=0.1)
    own = judge(found)
    usual, half, far = (record(0.9, 0.9) for _ in range(3))
    usual.channels[0].update(flat=0.1)
    half.channels[0].update(flat=0.6)
    far.channels[0].update(flat=0.1, p95=3.0)
    doubts = [assess("x", [one], [own]).doubt for one in (usual, half, far)]
    assert 1 - doubts[1] == pytest.approx((1 - doubts[0]) * 2 / 3) and doubts[0] < doubts[2] < doubts[0] + 0.1
    assert assess("x", [half], [own]).image.reasons == ("60% of the slices of T1 are empty, usually 10%",)
    usual.channels[0].update(flat=0.2)  # within what is usual
    assert assess("x", [usual], [own]).doubt == doubts[0]
    unknown = Judge(Path("other"), None, "not calibrated", TrainingImages(), ("T1",))
    both = [assess("x", [half, half], models).regions["lesion"].trust for models in ([own, unknown], [unknown, own])]
    assert both == pytest.approx([2 / 3] * 2)
    assert replace(assess("x", [half], [own]).regions["lesion"], missed=0.1).doubt == pytest.approx(1 - 0.9 * 2 / 3)
    assert ImageDistance(math.nan, ()).trust == ImageDistance(5.0, ()).trust == 1
    assert ImageDistance(0.0, (), 0.5).trust == pytest.approx(2 / 3) and ImageDistance(0.0, (), 1.0).trust == 0
