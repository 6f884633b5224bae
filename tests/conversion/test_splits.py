"""Folds are a partition, keep patients together, and are more even than random folds."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factorizer_nnunet.dataset_conversion.splits import five_folds


@dataclass(frozen=True)
class Cases:
    """Arguments of five_folds."""

    patients: dict[str, str]
    volumes_mm3: dict[str, float]
    strata: dict[str, str]

    def folds(self, seed: int = 0) -> list[dict[str, list[str]]]:
        return five_folds(self.patients, self.volumes_mm3, self.strata, seed)

    def log_volume_of_patients(self, cases: list[str]) -> list[float]:
        totals: Counter[str] = Counter()
        for case in cases:
            totals[self.patients[case]] += self.volumes_mm3[case]
        return [float(np.log1p(total)) for total in totals.values()]


@st.composite
def cases(draw: st.DrawFn, min_patients: int = 5, max_patients: int = 40) -> Cases:
    volume = st.one_of(st.just(0.0), st.floats(1, 1e6))
    patients, volumes, strata = {}, {}, {}
    for patient in range(draw(st.integers(min_patients, max_patients))):
        stratum = draw(st.sampled_from(["", "HGG", "LGG"]))
        for time in range(draw(st.sampled_from([1, 1, 1, 2, 5]))):
            name = f"P{patient:03d}-{time}"
            patients[name], volumes[name], strata[name] = f"P{patient:03d}", draw(volume), stratum
    return Cases(patients, volumes, strata)


def many(seed: int, strata: tuple[str, ...] = ("",), spread: float = 1.5, empty: float = 0.03) -> Cases:
    """120 patients with one or two cases; volumes are log-normal, a share of them 0."""
    rng = np.random.default_rng(seed)
    names = [f"sub-{p:04d}_ses-{t}" for p in range(120) for t in range(1 + (p % 7 == 0))]
    by_patient = {f"sub-{p:04d}": strata[int(rng.integers(len(strata)))] for p in range(120)}
    return Cases(
        {name: name[:8] for name in names},
        {name: 0.0 if rng.random() < empty else float(rng.lognormal(9, spread)) for name in names},
        {name: by_patient[name[:8]] for name in names},
    )


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 2**32))
def test_every_case_is_validated_once_and_no_patient_is_on_both_sides(cases: Cases, seed: int) -> None:
    folds = cases.folds(seed)
    assert len(folds) == 5
    assert sorted(case for fold in folds for case in fold["val"]) == sorted(cases.patients)
    for fold in folds:
        assert set(fold) == {"train", "val"}
        assert fold["train"] == sorted(set(cases.patients) - set(fold["val"]))
        assert fold["val"] == sorted(fold["val"])
        both = {cases.patients[case] for case in fold["train"]} & {cases.patients[case] for case in fold["val"]}
        assert not both
        assert fold["val"]


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 2**32))
def test_fold_sizes_differ_by_no_more_than_the_largest_patient(cases: Cases, seed: int) -> None:
    sizes = [len(fold["val"]) for fold in cases.folds(seed)]
    assert max(sizes) - min(sizes) <= max(Counter(cases.patients.values()).values())


@settings(max_examples=30, deadline=None)
@given(cases(min_patients=1, max_patients=4))
def test_fewer_than_five_patients_give_no_folds(cases: Cases) -> None:
    assert cases.folds() == []


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_order_of_the_mappings_does_not_matter(cases: Cases, seed: int, order: random.Random) -> None:
    def shuffled(mapping: dict) -> dict:
        items = list(mapping.items())
        order.shuffle(items)
        return dict(items)

    other = Cases(shuffled(cases.patients), shuffled(cases.volumes_mm3), shuffled(cases.strata))
    assert other.folds(seed) == cases.folds(seed)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_gives_the_same_folds(hash_seed: str) -> None:
    example = many(3, ("a", "b"))
    code = (
        "import json, sys; from factorizer_nnunet.dataset_conversion.splits import five_folds; "
        "print(json.dumps(five_folds(*json.load(sys.stdin), seed=7)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([example.patients, example.volumes_mm3, example.strata]),
        env={"PYTHONHASHSEED": hash_seed},  # sets and dicts of text are walked in another order
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == example.folds(7)


KNOWN = """\
02 05 11
03 07
04 08
00 06 10
01 09
"""


def test_folds_of_a_small_set_are_known() -> None:
    """Recorded result: no version of Python or of this package may move cases between folds."""
    names = [f"case{number:02d}" for number in range(12)]
    example = Cases(
        {name: name for name in names},
        {name: 10.0 * 2**number for number, name in enumerate(names)},
        dict.fromkeys(names, ""),
    )
    known = [line.split() for line in KNOWN.splitlines()]
    assert [[case.removeprefix("case") for case in fold["val"]] for fold in example.folds(42)] == known


@pytest.mark.parametrize(("spread", "empty", "share"), [(0.8, 0.0, 0.25), (2.0, 0.0, 0.25), (0.8, 0.03, 0.5)])
def test_volumes_are_far_more_even_than_in_random_folds(spread: float, empty: float, share: float) -> None:
    """Difference of mean log volume between folds, averaged over sets, against chance.

    Three or four empty labels, far from all others in the logarithm, cannot be even over five folds.
    """

    def difference(example: Cases, folds: list[list[str]]) -> float:
        means = [np.mean(example.log_volume_of_patients(fold)) for fold in folds]
        return float(max(means) - min(means))

    ours, chance = [], []
    for seed in range(8):
        example = many(seed, ("a", "b", "c"), spread, empty)
        ours.append(difference(example, [fold["val"] for fold in example.folds(seed)]))
        patients = sorted(set(example.patients.values()))
        np.random.default_rng(seed).shuffle(patients)
        groups = [set(patients[start::5]) for start in range(5)]
        chance.append(difference(example, [[c for c, p in example.patients.items() if p in g] for g in groups]))
    assert np.mean(ours) < share * np.mean(chance)


def test_small_and_large_volumes_are_in_every_fold() -> None:
    """Not only the mean is even: each fold has a fifth of the twenty smallest and of the twenty largest."""
    example = many(1)
    singles = {case: volume for case, volume in example.volumes_mm3.items() if case.endswith("0")}
    alone = Cases({case: case for case in singles}, singles, dict.fromkeys(singles, ""))
    order = sorted(singles, key=lambda case: (singles[case], case))
    for fold in alone.folds():
        for end in (order[:20], order[-20:]):
            assert len(set(end) & set(fold["val"])) == 4


def test_strata_are_even_despite_tiny_ones() -> None:
    strata = ["HGG"] * 43 + ["LGG"] * 22 + ["x", "y", "z"]
    names = [f"case{number:03d}" for number in range(len(strata))]
    rng = np.random.default_rng(0)
    example = Cases(
        {name: name for name in names},
        {name: float(rng.lognormal(10, 1)) for name in names},
        dict(zip(names, strata, strict=True)),
    )
    counts = [Counter(example.strata[case] for case in fold["val"]) for fold in example.folds()]
    for stratum in ("HGG", "LGG"):
        assert max(c[stratum] for c in counts) - min(c[stratum] for c in counts) <= 1
    assert max(c.total() for c in counts) - min(c.total() for c in counts) <= 1


def test_a_patient_counts_for_the_stratum_of_most_of_its_cases() -> None:
    """Ten patients, half of each site; two of them also have one case of the other: each fold gets one of each site."""
    patients, strata = {}, {}
    for number in range(10):
        for time in range(3):
            name = f"P{number}-{time}"
            patients[name] = f"P{number}"
            strata[name] = "a" if (number < 5) != (time == 0 and number in (1, 8)) else "b"
    example = Cases(patients, dict.fromkeys(patients, 1.0), strata)
    for fold in example.folds():
        assert sorted(int(patients[case][1:]) < 5 for case in fold["val"]) == [False] * 3 + [True] * 3


def test_seed_changes_the_folds() -> None:
    example = many(0)
    assert example.folds(1) == example.folds(1)
    assert example.folds(1) != example.folds(2)


def test_mappings_of_different_cases_are_an_error() -> None:
    with pytest.raises(ValueError, match="have different cases: b"):
        five_folds({"a": "p", "b": "q"}, {"a": 1.0}, {"a": ""}, seed=0)
