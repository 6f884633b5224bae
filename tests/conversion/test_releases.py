"""Declarations of releases are consistent, also with nnU-Net's behaviour."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization, ZScoreNormalization
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme
from trees import TREES, build_tree

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.dataset_conversion import releases
from factorizer_nnunet.dataset_conversion.discover import find_cases, list_files
from factorizer_nnunet.dataset_conversion.layout import (
    NiftiFile,
    group_by_case,
    readable,
    unlabelled_folder,
)
from factorizer_nnunet.dataset_conversion.releases import RELEASES
from factorizer_nnunet.dataset_conversion.spec import Channel, LabelMap, LabelScheme, Release

EVERY_RELEASE = pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
EVERY_SCHEME = pytest.mark.parametrize(
    ("release", "scheme"),
    [
        pytest.param(release, scheme, id=f"{release.key}-{number}")
        for release in RELEASES.values()
        for number, scheme in enumerate(release.schemes)
    ],
)
EXPECTED = """
    atlas2
    brats2018 brats2019 brats2020 brats2021
    brats2023-gli brats2023-ssa brats2023-men brats2023-met brats2023-ped
    brats2024-gli brats2024-ssa brats2024-men-rt brats2024-met brats2024-ped brats2024-goat
    brats2025-gli brats2025-met brats2025-ssa brats2025-men brats2025-men-rt brats2025-ped brats2025-goat
    isles2015-siss isles2015-spes isles2016 isles2017 isles2018 isles2022 isles2024 msd-brain
"""


def test_every_release_exists_and_has_a_tree() -> None:
    assert list(RELEASES) == EXPECTED.split()
    assert set(TREES) == set(RELEASES)
    assert all(RELEASES[key].key == key for key in RELEASES)
    assert len({release.title for release in RELEASES.values()}) == len(RELEASES)


def test_every_release_in_a_module_is_in_the_catalog() -> None:
    modules = Path(releases.__path__[0]).glob("*.py")
    names = [name for path in modules for name in re.findall(r"^([A-Z]+_[A-Z0-9_]+) = ", path.read_text(), re.M)]
    declared = {re.sub(r"\W", "", key).upper() for key in RELEASES}
    assert {name.replace("_", "") for name in names} >= declared and len(declared) == len(RELEASES)
    challenges = ("BRATS_", "ISLES_", "ATLAS_", "MSD_")
    assert len([name for name in names if name.startswith(challenges)]) == len(RELEASES)


def test_declarations_need_neither_torch_nor_nnunet() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['nnunetv2'] = None; "
        "import factorizer_nnunet.dataset_conversion.recognise"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@EVERY_SCHEME
def test_regions_give_labels_back_as_nnunet_exports_them(release: Release, scheme: LabelScheme) -> None:
    """Later regions overwrite earlier ones; every written value must survive."""
    written = np.array(sorted(set(scheme.labels.to_nnunet.values())))
    order = scheme.regions_class_order or [value for (value,) in scheme.regions.values()]
    exported = np.zeros_like(written)
    for values, left in zip(scheme.regions.values(), order, strict=True):
        exported[np.isin(written, values)] = left
    np.testing.assert_array_equal(exported, written)


@EVERY_SCHEME
def test_submitted_values_are_those_of_the_release(release: Release, scheme: LabelScheme) -> None:
    """Converting written values back and forth changes nothing; raw values survive unless some merge."""
    back = scheme.labels.inverse()
    written = np.array(sorted(back.to_nnunet))
    assert list(written) == sorted(set(scheme.labels.to_nnunet.values()))
    np.testing.assert_array_equal(scheme.labels.apply(back.apply(written)), written)
    if scheme.labels.back is None:
        raw = np.array(sorted(scheme.labels.to_nnunet))
        np.testing.assert_array_equal(back.apply(scheme.labels.apply(raw)), raw)


@pytest.mark.parametrize(
    ("key", "regions"),
    [
        ("brats2021", {"whole tumor": {1, 2, 4}, "tumor core": {1, 4}, "enhancing tumor": {4}}),
        ("msd-brain", {"whole tumor": {1, 2, 3}, "tumor core": {2, 3}, "enhancing tumor": {3}}),
        ("brats2023-ped", {"whole tumor": {1, 2, 3}, "tumor core": {1, 3}, "enhancing tumor": {3}}),
        (
            "brats2024-gli",
            {"whole tumor": {1, 2, 3}, "tumor core": {1, 3}, "enhancing tumor": {3}, "resection cavity": {4}},
        ),
        (
            "brats2024-ped",
            {"whole tumor": {1, 2, 3, 4}, "tumor core": {1, 2, 3}, "cystic component": {3}, "enhancing tumor": {1}},
        ),
        ("brats2024-men-rt", {"gross tumor volume": {1}}),
        ("isles2022", {"lesion": {1}}),
    ],
)
def test_regions_in_the_values_of_the_release(key: str, regions: dict[str, set[int]]) -> None:
    """As the organisers define them, in their label values."""
    scheme = RELEASES[key].schemes[0]
    raw = {
        name: {old for old, new in scheme.labels.to_nnunet.items() if new in values}
        for name, values in scheme.regions.items()
    }
    assert raw == regions


def test_values_that_a_release_does_not_have_are_unknown() -> None:
    def knows(key: str, *values: int) -> bool:
        return any(set(values) <= scheme.labels.to_nnunet.keys() for scheme in RELEASES[key].schemes)

    assert not knows("brats2021", 3) and knows("brats2021", 0, 1, 2, 4)
    assert not knows("brats2023-ped", 4) and not knows("brats2023-gli", 4)
    assert knows("brats2024-met", 0, 1, 2, 3) and knows("brats2024-met", 4)
    assert not knows("isles2015-spes", 2) and not knows("brats2025-met", 6)
    assert knows("atlas2", 0, 255) and not knows("atlas2", 2)


@EVERY_RELEASE
def test_channels_are_normalised_by_their_names(release: Release) -> None:
    tomography = {("isles2018", "CT"), ("isles2024", "NCCT"), ("isles2024", "CTA")}
    for channel in release.channels:
        expected = CTNormalization if (release.key, channel.name) in tomography else ZScoreNormalization
        assert get_normalization_scheme(channel.written_name) is expected


@EVERY_RELEASE
def test_the_example_is_a_file_of_the_release(release: Release) -> None:
    grouped = group_by_case(release, [NiftiFile(Path(release.example), release.example)])
    assert len(grouped.cases) == 1


@EVERY_RELEASE
def test_messages_show_names_instead_of_patterns(release: Release) -> None:
    for pattern in (*(channel.file for channel in release.channels), *release.label):
        assert re.fullmatch(r"(?:[\w.*<>/-])+\.nii\.gz", readable(pattern, "CASE")), readable(pattern, "CASE")


@EVERY_RELEASE
def test_submissions_have_unique_names(release: Release, tmp_path: Path) -> None:
    build_tree(release.key, tmp_path / "source")
    cases = find_cases(release, list_files([tmp_path / "source"]), release.chosen_channels(None)).cases
    names = {release.submission.format_map({**case.fields, "case": case.name}) for case in cases}
    assert len(names) == len(cases)
    assert all(name.endswith((".nii.gz", ".nii")) and "-seg." not in name for name in names)


@pytest.mark.parametrize(
    ("key", "pattern"),
    [
        ("brats2023-gli", r"(\d{5}-\d{3})\.nii\.gz$"),
        ("brats2024-men-rt", r"(\d{4,5}-\d{1,3})\.nii\.gz$"),
        ("brats2024-goat", r"(\d{5})\.nii\.gz$"),
        ("isles2017", r"^SMIR\.\w+\.\d+\.nii$"),
        ("atlas2", r"^sub-r\d{3}s\d{3}/ses-\d/anat/[^/]*_mask\.nii\.gz$"),
    ],
)
def test_submissions_pass_the_checks_of_the_challenges(key: str, pattern: str, tmp_path: Path) -> None:
    """Patterns from the public checks and from names of accepted files."""
    release = RELEASES[key]
    build_tree(key, tmp_path / "source")
    for case in find_cases(release, list_files([tmp_path / "source"]), release.chosen_channels(None)).cases:
        assert re.search(pattern, release.submission.format_map({**case.fields, "case": case.name}))


@pytest.mark.parametrize(
    ("key", "case", "patient"),
    [
        ("brats2018", "Brats18_TCIA01_131_1", "Brats18_TCIA01_131"),
        ("brats2021", "BraTS2021_00012", "BraTS2021_00012"),
        ("brats2024-gli", "BraTS-GLI-00005-101", "BraTS-GLI-00005"),
        ("brats2025-men-rt", "BraTS-MEN-RT-0402-1", "BraTS-MEN-RT-0402"),
        ("isles2022", "sub-strokecase0009_ses-0001", "sub-strokecase0009"),
        ("isles2024", "sub-stroke0158", "sub-stroke0158"),
        ("atlas2", "sub-r009s003_ses-1", "sub-r009s003"),
    ],
)
def test_patients(key: str, case: str, patient: str) -> None:
    assert RELEASES[key].patient_of(case) == patient


def test_a_case_of_another_release_has_no_patient() -> None:
    with pytest.raises(ValueError, match="'BraTS20_Training_001' is not a case of BraTS 2018"):
        RELEASES["brats2018"].patient_of("BraTS20_Training_001")


@EVERY_RELEASE
def test_releases_that_hide_patients_say_what_to_do(release: Release) -> None:
    hidden = {
        *(f"brats{year}" for year in range(2018, 2022)),
        "brats2024-goat",
        "brats2025-goat",
        "msd-brain",
        "isles2018",
    }
    assert ("--patients" in release.patients_hidden) == (release.key in hidden)


@pytest.mark.parametrize(
    ("key", "folder", "expected"),
    [
        ("brats2018", "MICCAI_BraTS_2018_Data_Validation", True),
        ("brats2018", "brats18-val", True),
        ("brats2020", "MICCAI_BraTS2020_ValidationData", True),
        ("brats2020", "BraTS2020_ValidationData (1)", True),
        ("brats2021", "RSNA_ASNR_MICCAI_BraTS2021_ValidationData", True),
        ("brats2021", "RSNA_ASNR_MICCAI_BraTS2021_ValidationData_16July2021", True),
        ("brats2021", "RSNA_ASNR_MICCAI_BraTS2021_TestingData", True),
        ("brats2023-gli", "ASNR-MICCAI-BraTS2023-GLI-Challenge-ValidationData", True),
        ("brats2024-gli", "validation_data", True),
        ("brats2024-gli", "BraTS2024-BraTS-GLI-ValidationData", True),
        ("brats2024-men-rt", "BraTS-MEN-RT-Val-v1", True),
        ("brats2024-met", "MICCAI-BraTS2024-MET-Challenge-Validation", True),
        ("brats2025-met", "MICCAI-LH-BraTS2025-MET-Challenge-ValidationData_batch1", True),
        ("brats2024-goat", "MICCAI2024-BraTS-GoAT-ValidationData", True),
        ("brats2024-goat", "val", True),
        ("brats2024-goat", "Validation Data", True),
        ("brats2021", "my_validation_of_nets", False),
        ("brats2021", "BraTS2021_validation_of_nets", False),
        ("brats2021", "invalid", False),
        ("brats2021", "test", False),
        ("brats2021", "BraTS_validated", False),
        ("brats2021", "ValidationData_TrainingFormat", False),
    ],
)
@pytest.mark.parametrize("spelled", [str, str.lower, str.upper])
def test_folders_whose_cases_have_no_label(
    key: str, folder: str, expected: bool, spelled: Callable[[str], str]
) -> None:
    """Folder names of releases and copies; cases in any other folder need labels."""
    shown = f"source/{spelled(folder)}/case/file.nii.gz"
    assert unlabelled_folder(RELEASES[key], shown) == (spelled(folder) if expected else "")


@pytest.mark.parametrize(
    ("key", "name", "pattern"),
    [
        ("isles2017", "1/VSD.Brain.XX.O.ADC.128020/VSD.Brain.XX.O.ADC.128020", None),
        ("isles2017", "training_1/VSD.Brain.XX.O.ADC.128020/VSD.Brain.XX.O.ADC.128020", "ADC"),
        ("isles2017", "training_1/SMIR.Brain.XX.O.MR_ADC.128020/SMIR.Brain.XX.O.MR_ADC.128020", "ADC"),
        ("isles2017", "training_1/SMIR.Brain.XX.O.MR_OT.128020/SMIR.Brain.XX.O.MR_OT.128020", "label"),
        ("isles2017", "training_1/SMIR.Brain.XX.O.OT.128020/SMIR.Brain.XX.O.OT.128020", "label"),
        ("isles2017", "training_1/VSD.Brain.XX.O.MR_4DPWI.127015/VSD.Brain.XX.O.MR_4DPWI.127015", None),
        ("isles2018", "case_1/SMIR.Brain.XX.O.OT.345566/SMIR.Brain.XX.O.OT.345566", "label"),
        ("isles2015-spes", "1/VSD.Brain.XX.O.T1c.36000/VSD.Brain.XX.O.T1c.36000", "T1c"),
        ("isles2015-spes", "1/VSD.Brain.XX.O.MR_T1.36000/VSD.Brain.XX.O.MR_T1.36000", None),
        ("isles2015-siss", "1/VSD.Brain.XX.O.MR_T1.70615/VSD.Brain.XX.O.MR_T1.70615", "T1"),
        ("isles2015-siss", "1/VSD.Brain.XX.O.MR_T1c.70615/VSD.Brain.XX.O.MR_T1c.70615", None),
        ("isles2015-siss", "1/VSD.Brain.XX.O.OT.70617/VSD.Brain.XX.O.OT.70617", "label"),
        ("isles2015-siss", "1/VSD.Brain_3more.XX.XX.OT.70617/VSD.Brain_3more.XX.XX.OT.70617", "label"),
        ("isles2015-siss", "1/OT.70617/OT.70617", "label"),
        ("isles2015-siss", "1/VSD.Brain.XX.O.OTHER.70617/VSD.Brain.XX.O.OTHER.70617", None),
    ],
)
def test_names_of_the_archives(key: str, name: str, pattern: str | None) -> None:
    release = RELEASES[key]
    path = f"{name}.nii"
    meant = {**{channel.file: channel.name for channel in release.channels}, **dict.fromkeys(release.label, "label")}
    grouped = group_by_case(release, [NiftiFile(Path(path), path)])
    matches = [text for case in grouped.cases.values() for text in case.matches]
    assert [meant[text] for text in matches] == ([pattern] if pattern else [])


def test_hints_say_what_to_do_about_known_values() -> None:
    assert {key for key, release in RELEASES.items() if release.values_hint} == {"isles2015-spes", "brats2025-met"}
    for key, options in (
        ("isles2015-spes", ["1=0", "2=1", "2=0"]),
        ("brats2025-met", ["BraTS-MET-01094-002:6=0"]),
    ):
        given = re.findall(r"--remap ((?:(?:[\w-]+:)?\d=\d ?)+)", RELEASES[key].values_hint)
        assert " ".join(given).split() == options


def test_channels_are_chosen_by_name() -> None:
    release = RELEASES["isles2022"]
    assert [channel.name for channel in release.chosen_channels(None)] == ["DWI", "ADC", "FLAIR"]
    assert [channel.name for channel in release.chosen_channels(["adc", "DWI"])] == ["ADC", "DWI"]
    with pytest.raises(UserError, match="ISLES 2022 has no channel 'T1': choose from DWI, ADC, FLAIR"):
        release.chosen_channels(["DWI", "T1"])
    with pytest.raises(UserError, match="at least one, each once"):
        release.chosen_channels(["DWI", "dwi"])
    with pytest.raises(UserError, match="at least one, each once"):
        release.chosen_channels([])
    assert release.has_channels(["adc", "FLAIR"]) and not release.has_channels(["ADC", "T1"])


@EVERY_RELEASE
def test_every_release_names_the_channel_to_show(release: Release) -> None:
    names = [channel.name for channel in release.channels if not channel.own_grid]
    assert release.display in names or len(names) == 1
    if "brats" in release.key and len(names) > 1:
        assert release.display in ("FLAIR", "T2f")


def test_inconsistent_declarations_are_refused() -> None:
    with pytest.raises(ValueError, match="invalid written labels .*: nnU-Net needs 0, 1, 2"):
        LabelScheme(LabelMap({0: 0, 4: 2}), {"lesion": (2,)})
    with pytest.raises(ValueError, match=r"must cover the labels \[1, 2\]"):
        LabelScheme(LabelMap({0: 0, 1: 1, 2: 2}), {"lesion": (1,)})
    with pytest.raises(ValueError, match="one order entry per region"):
        LabelScheme(LabelMap({0: 0, 1: 1, 2: 2}), {"all": (1, 2), "core": (2,)}, (1,))
    with pytest.raises(ValueError, match="labels merge in .*, which cannot be inverted"):
        LabelMap({0: 0, 1: 1, 4: 1}).inverse()

    def release(*channels: Channel, display: str = "") -> Release:
        scheme = LabelScheme(LabelMap({0: 0, 1: 1}), {"lesion": (1,)})
        text = dict.fromkeys(("key", "title", "case", "root", "unlabelled", "submission", "example"), "x")
        return Release(
            **text, channels=channels, label=("x",), schemes=(scheme,), licence="", reference="", display=display
        )

    with pytest.raises(ValueError, match="not unique"):
        release(Channel("A", "a"), Channel("A", "b"))
    with pytest.raises(ValueError, match="the first channel defines the grid"):
        release(Channel("A", "a", own_grid=True))
    with pytest.raises(ValueError, match="the channel to show, 'B', is not among"):
        release(Channel("A", "a"), display="B")
