"""Five folds for cross-validation, as nnU-Net's splits_final.json holds them, that keep every patient in one fold.

Patients of one stratum (a grade, a site) are sorted by lesion volume and dealt to the folds five at a time, one each.
So folds agree in strata, to within one patient in each of five or more, and in the whole distribution of volumes.

Scikit-learn's StratifiedGroupKFold balances classes, so volumes must be cut into bins first (here quintiles in each
stratum), and it promises nothing about fold sizes. Largest differences between folds, over 40 synthetic sets each:

                                          these folds   scikit-learn   random
    BraTS 2023 glioma: 1251 cases of 1133 patients, 118 of them with two
      cases                                         2              2       23
      mean logarithm of volume                   0.01           0.10     0.21
    ISLES'22: 250 patients of three sites, wide spread of volumes
      cases                                         0              2        0
      cases of a site                               1              4       17
      mean logarithm of volume                   0.09           0.73     1.35
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence

FOLDS = 5
# Some dealings put large patients of many blocks into one fold by chance: the evenest of this many is taken.
ATTEMPTS = 64


def five_folds(
    patients: Mapping[str, str], volumes_mm3: Mapping[str, float], strata: Mapping[str, str], seed: int
) -> list[dict[str, list[str]]]:
    """Return five {"train": cases, "val": cases}, sorted; every case is in one "val", with all cases of its patient.

    Numbers of validation cases differ between folds by no more than the largest patient has cases. Equal arguments
    give equal folds, in whatever order the mappings are and on every machine. Fewer than five patients cannot be
    folded: the list is empty then.

    Args:
        patients: patient of each case.
        volumes_mm3: volume of each case's whole label; a patient counts with the sum of its cases.
        strata: stratum of each case, "" where unknown; a patient with cases in several counts for the most frequent.
        seed: another one gives other folds, as even.

    Raises:
        ValueError: the mappings are not of the same cases.
    """
    if not patients.keys() == volumes_mm3.keys() == strata.keys():
        odd = (patients.keys() | volumes_mm3.keys() | strata.keys()) - (
            patients.keys() & volumes_mm3.keys() & strata.keys()
        )
        raise ValueError(f"patient, volume and stratum are not known of the same cases: {', '.join(sorted(odd))}")
    cases: dict[str, list[str]] = {}
    for case in sorted(patients):
        cases.setdefault(patients[case], []).append(case)
    if len(cases) < FOLDS:
        return []
    # sum() rounds differently since Python 3.12, fsum() exactly everywhere
    volume = {patient: math.fsum(volumes_mm3[case] for case in own) for patient, own in cases.items()}
    by_volume = sorted(cases, key=lambda patient: (volume[patient], patient))
    groups = _by_stratum(by_volume, {patient: [strata[case] for case in own] for patient, own in cases.items()})
    sizes = {patient: len(own) for patient, own in cases.items()}

    magnitude = {patient: _magnitude(volume[patient]) for patient in by_volume}
    rng = random.Random(seed)
    dealings = [_deal(groups, sizes, rng) for _ in range(ATTEMPTS)]
    fold_of = min(dealings, key=lambda dealing: _unevenness(dealing, magnitude))
    return [
        {
            "train": sorted(case for case, patient in patients.items() if fold_of[patient] != fold),
            "val": sorted(case for case, patient in patients.items() if fold_of[patient] == fold),
        }
        for fold in range(FOLDS)
    ]


def _by_stratum(by_volume: Sequence[str], strata: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Patients of each stratum, in the order given; strata too small for all folds are taken together."""
    # sorted() first: the lesser name wins a tie, not the one that a dict happens to hold first
    stratum = {patient: Counter(sorted(names)).most_common(1)[0][0] for patient, names in strata.items()}
    count = Counter(stratum.values())
    groups: dict[str, list[str]] = {}
    for patient in by_volume:
        name = stratum[patient]
        groups.setdefault(name if count[name] >= FOLDS else "", []).append(patient)
    return [groups[name] for name in sorted(groups)]


def _deal(groups: Sequence[Sequence[str]], sizes: Mapping[str, int], rng: random.Random) -> dict[str, int]:
    """One random dealing: the fold of each patient.

    In each block of five the patient with the most cases goes to the fold with the fewest, and so on. That never lets
    folds differ by more cases than the largest patient has, over all strata: of two folds, the one that gets more was
    behind, or they move no further apart than by one patient less the other.
    """
    load = [0] * FOLDS
    fold_of = {}
    for group in groups:
        for start in range(0, len(group), FOLDS):
            # Only random() is promised to give the same numbers in every version of Python; shuffle() is not.
            block = sorted(group[start : start + FOLDS], key=lambda patient: (-sizes[patient], rng.random()))
            folds = sorted(range(FOLDS), key=lambda fold: (load[fold], rng.random()))
            for patient, fold in zip(block, folds, strict=False):  # the last block may be short
                fold_of[patient] = fold
                load[fold] += sizes[patient]
    return fold_of


def _magnitude(volume_mm3: float) -> float:
    """The base-2 logarithm of 1 + volume, drawn straight between powers of two.

    The real one may differ in its last bit between machines, and then so might the dealing that is taken.
    """
    mantissa, exponent = math.frexp(1 + volume_mm3)
    return exponent + 2 * mantissa - 2


def _unevenness(fold_of: Mapping[str, int], magnitude: Mapping[str, float]) -> float:
    """Largest difference between folds in the mean volume, as magnitude, of their patients."""
    total, number = [0.0] * FOLDS, [0] * FOLDS
    for patient, fold in fold_of.items():
        total[fold] += magnitude[patient]
        number[fold] += 1
    means = [a / b if b else 0.0 for a, b in zip(total, number, strict=True)]
    return max(means) - min(means)
