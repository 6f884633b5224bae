"""Five cross-validation folds for nnU-Net's splits_final.json that keep all cases of a patient in one fold.

Patients of one stratum (a grade, a site) are sorted by lesion volume and dealt to the folds five at a time, one each.
Folds thus agree in strata, to within one patient for each stratum of at least five, and in the distribution of volumes.

Scikit-learn's StratifiedGroupKFold balances classes, so volumes would have to be binned first, and guarantees nothing
about the sizes of folds.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence

FOLDS = 5
# A dealing can put large patients of many blocks into one fold by chance: the most even of this many is used.
ATTEMPTS = 64


def five_folds(
    patients: Mapping[str, str], volumes_mm3: Mapping[str, float], strata: Mapping[str, str], seed: int
) -> list[dict[str, list[str]]]:
    """Return five {"train": cases, "val": cases}, sorted; every case is in one "val", with all cases of its patient.

    The numbers of validation cases differ by at most the number of cases of the largest patient. Equal arguments give
    equal folds, regardless of the order of the mappings and of the machine. With fewer than five patients the list is
    empty.

    Args:
        patients: patient of each case.
        volumes_mm3: volume of each case's complete label; the volumes of a patient's cases are added.
        strata: stratum of each case, "" if unknown; a patient belongs to the most frequent stratum of its cases.
        seed: gives different, equally even folds.

    Raises:
        ValueError: the mappings have different cases.
    """
    if not patients.keys() == volumes_mm3.keys() == strata.keys():
        odd = (patients.keys() | volumes_mm3.keys() | strata.keys()) - (
            patients.keys() & volumes_mm3.keys() & strata.keys()
        )
        raise ValueError(f"patients, volumes and strata have different cases: {', '.join(sorted(odd))}")
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
    """Patients of each stratum, in the given order; strata with fewer than five patients are merged."""
    # sorted() first: in a tie the lesser name wins, independent of the order of a dict
    stratum = {patient: Counter(sorted(names)).most_common(1)[0][0] for patient, names in strata.items()}
    count = Counter(stratum.values())
    groups: dict[str, list[str]] = {}
    for patient in by_volume:
        name = stratum[patient]
        groups.setdefault(name if count[name] >= FOLDS else "", []).append(patient)
    return [groups[name] for name in sorted(groups)]


def _deal(groups: Sequence[Sequence[str]], sizes: Mapping[str, int], rng: random.Random) -> dict[str, int]:
    """One random dealing: the fold of each patient.

    In each block of five, the patient with the most cases goes to the fold with the fewest, and so on. Over all strata,
    folds then never differ by more cases than the largest patient has: of two folds, the one that receives more cases
    either had fewer, or the difference grows by at most the difference between the two patients.
    """
    load = [0] * FOLDS
    fold_of = {}
    for group in groups:
        for start in range(0, len(group), FOLDS):
            # Only random() is guaranteed to give the same numbers in every Python version; shuffle() is not.
            block = sorted(group[start : start + FOLDS], key=lambda patient: (-sizes[patient], rng.random()))
            folds = sorted(range(FOLDS), key=lambda fold: (load[fold], rng.random()))
            for patient, fold in zip(block, folds, strict=False):  # the last block may be short
                fold_of[patient] = fold
                load[fold] += sizes[patient]
    return fold_of


def _magnitude(volume_mm3: float) -> float:
    """The base-2 logarithm of 1 + volume, interpolated linearly between powers of two.

    The exact logarithm may differ in its last bit between machines, and with it the choice of a dealing.
    """
    mantissa, exponent = math.frexp(1 + volume_mm3)
    return exponent + 2 * mantissa - 2


def _unevenness(fold_of: Mapping[str, int], magnitude: Mapping[str, float]) -> float:
    """Largest difference between folds in the mean magnitude of their patients' volumes."""
    total, number = [0.0] * FOLDS, [0] * FOLDS
    for patient, fold in fold_of.items():
        total[fold] += magnitude[patient]
        number[fold] += 1
    means = [a / b if b else 0.0 for a, b in zip(total, number, strict=True)]
    return max(means) - min(means)
