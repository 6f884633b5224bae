"""Challenge regions by the names of labels: scores do not depend on how a data set numbers or calls the parts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from score_example import write

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.dataset_conversion.releases import RELEASES
from factorizer_nnunet.evaluation import parts
from factorizer_nnunet.evaluation.case import score_arrays
from factorizer_nnunet.evaluation.parts import part_named
from factorizer_nnunet.evaluation.regions import regions_of
from factorizer_nnunet.evaluation.schemes import SCHEMES
from factorizer_nnunet.nnunet.dataset_json import DatasetJson

NAMES = {
    parts.NCR: (
        "NCR",
        "Necrotic core",
        "non-enhancing_tumour_core",
        "NETC",
        "NCR/NET",
        "necrotic and non-enhancing tumor",
    ),
    parts.ED: ("ED", "oedema", "SNFH", "Peritumoral_Edema", "surrounding non-enhancing FLAIR hyperintensity"),
    parts.ET: ("ET", "GD-enhancing tumor", "Enhancing_Tumour", "contrastEnhancing", "enhancing tumor core"),
    parts.RC: ("RC", "Resection-Cavity"),
    parts.CC: ("CC", "cystic_component"),
    parts.GTV: ("GTV", "gross tumour volume"),
    parts.LESION: ("stroke lesion", "infarct", "Lesion"),
    parts.WHOLE: ("WT", "whole tumour", "Complete-Tumor"),
    parts.CORE: ("TC", "tumour_core"),
}
WITH_PARTS = [key for key, scheme in SCHEMES.items() if len(scheme.parts) > 1]


@pytest.mark.parametrize("part", NAMES)
def test_names_in_any_spelling(part: str) -> None:
    for name in NAMES[part]:
        spellings = (name, name.upper(), name.replace(" ", "_"), name.replace("_", "-"))
        assert {part_named(spelling) for spelling in spellings} == {part}, name


@pytest.mark.parametrize("name", ["tumor", "label 1", "necrosis and edema", "enhancing + necrotic", "vessel", "", "1"])
def test_names_that_say_nothing_or_two_things(name: str) -> None:
    assert part_named(name) is None


def pieces(seed: int, values: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    fields = gaussian_filter(rng.normal(size=(1 + len(values), 14, 12, 9)), (0, 1.5, 1.5, 1.5))
    return np.array([0, *values])[fields.argmax(0)]


@pytest.mark.parametrize("key", WITH_PARTS)
def test_scores_do_not_depend_on_the_numbering(key: str) -> None:
    scheme = SCHEMES[key]
    release = tuple(scheme.parts)
    reference, prediction = pieces(1, release), pieces(2, release)
    spacing = (1.0, 1.0, 2.0)
    expected = score_arrays(prediction, reference, spacing, scheme.regions or {}, scheme, (1.0,))
    orders = list(itertools.permutations(range(1, len(release) + 1)))
    for number, order in enumerate(orders[:: max(1, len(orders) // 4)]):
        new = dict(zip(release, order, strict=True))
        labels = {"background": 0} | {
            NAMES[part][number % len(NAMES[part])]: new[value] for value, part in scheme.parts.items()
        }
        regions = regions_of(DatasetJson({"labels": labels}), scheme)
        arrays = [np.vectorize(lambda v, new=new: new.get(v, 0))(array) for array in (prediction, reference)]
        found = score_arrays(*arrays, spacing, regions.labels, regions.scheme, (1.0,))
        assert [one.values for one in found.values()] == [
            pytest.approx(one.values, nan_ok=True) for one in expected.values()
        ]


@pytest.mark.parametrize("key", WITH_PARTS)
def test_a_converted_release_is_scored_by_its_scheme(key: str) -> None:
    """The regions that our conversion writes to dataset.json."""
    for written in RELEASES[key].schemes:
        labels = {"background": 0} | {name: list(values) for name, values in written.regions.items()}
        regions = regions_of(DatasetJson({"labels": labels}), SCHEMES[key])
        expected = {
            name: {written.labels.to_nnunet[value] for value in values if value in written.labels.to_nnunet}
            for name, values in (SCHEMES[key].regions or {}).items()
        }
        scored = {frozenset(values) for values in regions.labels.values()}
        assert {frozenset(values) for values in expected.values() if values} <= scored


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a": 1, "b": 2, "c": 3}, "no label is named as necrosis, edema, enhancing tumor"),
        ({"edema": 1, "Nekrose": 2, "enhancing": 3}, "no label is named as necrosis"),
        ({"edema": 1, "tumor core": 2, "enhancing": 3}, "do not say what the value 3 is"),
        ({"whole tumor": [1, 2], "tumor core": [2, 3], "enhancing": [3]}, "do not say what the value 3 is"),
    ],
)
def test_names_that_do_not_tell_are_refused(labels: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        regions_of(DatasetJson({"labels": {"background": 0, **labels}}), SCHEMES["brats2021"])


def test_a_single_lesion_may_have_any_name_and_value() -> None:
    for key in ("isles2022", "isles2024", "brats2024-men-rt"):
        regions = regions_of(DatasetJson({"labels": {"background": 0, "Läsion": 2}}), SCHEMES[key])
        assert dict(regions.labels) == {"Läsion": (2,)}
    two = {"background": 0, "penumbra": 1, "infarct": 2}
    assert dict(regions_of(DatasetJson({"labels": two}), SCHEMES["isles2022"]).labels) == {"infarct": (2,)}


@pytest.mark.parametrize(
    ("labels", "values", "core"),
    [(None, (1, 2, 4), "1 + 4"), ({"edema": 1, "necrosis": 2, "enhancing": 3}, (2, 1, 3), "2 + 3")],
)
def test_the_command_says_which_values_it_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: dict | None, values: tuple[int, ...], core: str
) -> None:
    for folder, seed in (("p", 1), ("r", 2)):
        write(tmp_path / folder / "a.nii.gz", pieces(seed, values).astype(np.uint8))
    if labels is not None:
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, **labels}}))
    arguments = ["-p", tmp_path / "p", "-r", tmp_path / "r", "-o", tmp_path / "out", "-np", 1]
    assert cli.main(["evaluate", *map(str, arguments), "--scheme", "brats2020"]) == 0
    shown = capsys.readouterr().out
    assert f"tumor core = {core}," in shown
    assert ("dataset.json: none found" in shown) == (labels is None)
    assert f"tumor core = {core}," in (tmp_path / "out" / "scores.md").read_text()
