"""Cases are found in trees of all releases, however they were unpacked, and problems are reported."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conversions import check_all_found, find
from nifti_files import labels, write
from tree_builder import SHAPE, Builder, Tree
from trees import TREES, build_tree
from trees_isles import isles_2015_siss_nested, isles_2022


@pytest.mark.parametrize("key", TREES)
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"spelled": str.upper},
        {"spelled": str.lower},
        {"ending": ".nii"},
        {"ending": ".nii.gz"},
        {"nested": True},
    ],
    ids=["as released", "upper", "lower", "nii", "nii.gz", "nested"],
)
def test_every_release_is_found_completely(key: str, how: dict, tmp_path: Path) -> None:
    tree = build_tree(key, tmp_path / "source", **how)
    check_all_found(find(key, tree.source), tree)


@pytest.mark.parametrize("key", TREES)
def test_every_release_is_found_by_its_root_folders(key: str, tmp_path: Path) -> None:
    """Users may give the folders inside: their names are used, and several sources form one release."""
    tree = build_tree(key, tmp_path / "source")
    check_all_found(find(key, *sorted(path for path in tree.source.iterdir() if path.is_dir())), tree)


def test_strata_and_fields_of_cases(tmp_path: Path) -> None:
    build_tree("brats2018", tmp_path / "brats")
    assert {case.stratum for case in find("brats2018", tmp_path / "brats").cases} == {"HGG", "LGG", ""}
    build_tree("atlas2", tmp_path / "atlas")
    (case,) = [c for c in find("atlas2", tmp_path / "atlas").cases if c.name == "sub-r009s003_ses-1"]
    assert case.stratum == "R009"
    assert case.fields == {"case": "sub-r009s003_ses-1", "subject": "sub-r009s003", "session": "ses-1"}
    build_tree("isles2017", tmp_path / "isles")
    without_mtt = find("isles2017", tmp_path / "isles", channels=("Tmax", "ADC")).cases
    assert {c.name: c.fields["mtt"] for c in without_mtt} == {
        "training_1": "128021",
        "training_43": "188921",
        "test_1": "129318",  # names the submission, though MTT is no channel here
    }
    assert [image.name for image in without_mtt[0].images] == [
        "SMIR.Brain.XX.O.MR_Tmax.129321.nii",
        "SMIR.Brain.XX.O.MR_ADC.129317.nii",
    ]


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("ISLES-2022/rawdata/{subject}/ses-0001", ("dwi", "adc")),
        ("ISLES-2022/{subject}/ses-0001/{modality}", ("DWI", "ADC")),
        ("ISLES-2022/{subject}/{modality}/ses-0001", ("DWI", "ADC")),
    ],
    ids=["in the session", "first release", "modality above the session"],
)
def test_layouts_of_isles_2022(layout: str, names: tuple[str, str], tmp_path: Path) -> None:
    """Masks of the same subjects are in another folder; registered copies are ignored."""
    tree = Tree(tmp_path / "source")
    isles_2022(Builder(tree, ending=".nii.gz"), layout, names)
    dwi = next(iter(tree.images.values()))[0]
    shutil.copy(dwi, dwi.with_name(dwi.name.replace(names[0], "FLAIR_registered")))
    check_all_found(find("isles2022", tree.source), tree)


def test_the_old_nesting_of_siss(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "source")
    isles_2015_siss_nested(Builder(tree))
    check_all_found(find("isles2015-siss", tree.source), tree)


def test_identical_copies_count_once_and_different_ones_are_problems(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    case = tree.labels["BraTS2021_00000"].parent
    again = shutil.copytree(case, tree.source / "z_again" / case.name)
    packed = again / f"{case.name}_t1.nii.gz"
    (again / f"{case.name}_t1.nii").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    found = find("brats2021", tree.source)
    check_all_found(found, tree)
    note, _ = found.notes
    assert "an identical copy of a file that is used (and for 4 more files of this case)" in str(
        note
    ) and "z_again" in str(note.path)

    write(again / f"{case.name}_seg.nii.gz", labels("other", SHAPE, (1, 2)))
    (problem,) = find("brats2021", tree.source).problems
    assert problem.case == "BraTS2021_00000"
    assert re.search(r"_seg.nii.gz: differs from .*z_again/.*_seg.nii.gz: keep the right one", str(problem))


def test_truncated_copies_are_compared_as_they_are(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    file = tree.labels["BraTS2021_00000"]
    file.write_bytes(file.read_bytes()[:-20])
    shutil.copytree(file.parent, tree.source / "z" / file.parent.name)
    check_all_found(find("brats2021", tree.source), tree)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("brats2023-men", "a corrected file is used instead"),
        ("brats2024-men-rt", "a corrected file is used instead"),
        ("brats2020", "used as the label: the only file of the case that is not a modality"),
        ("brats2024-goat", "has no label and is treated as an unlabelled case"),
        ("isles2017", "1 are not needed for ISLES 2017 or have unknown names: source/ISLES2017_Training"),
        (
            "brats2023-ssa",
            "5 are in folders that are not part of BraTS 2023 SSA: source/BraTS-Africa/51_",
        ),
        (
            "brats2023-gli",
            "source: cases treated as unlabelled because of a parent folder's name: 1, e.g. "
            "ASNR-MICCAI-BraTS2023-GLI-Challenge-ValidationData",
        ),
    ],
)
def test_decisions_are_noted(key: str, text: str, tmp_path: Path) -> None:
    build_tree(key, tmp_path / "source")
    assert any(text in str(note) for note in find(key, tmp_path / "source").notes)


def test_labels_with_other_names_are_noted(tmp_path: Path) -> None:
    """The organisers' sample has masks without the space in their names; they are ignored next to a usual one."""
    tree = build_tree("isles2024", tmp_path / "source")
    label = tree.labels["sub-stroke0001"]
    tree.labels["sub-stroke0001"] = label.rename(label.with_name("sub-stroke0001_ses-02_lesion-msk.nii.gz"))
    found = find("isles2024", tree.source)
    check_all_found(found, tree)
    said = {note.path: note.text for note in found.notes}
    assert said[tree.labels["sub-stroke0001"]].startswith("used as the label, because there is no sub-stroke0001_ses-")
    (stray,) = tree.source.rglob("sub-stroke0142_ses-02_lesion-msk.nii")
    assert said[stray] == "a label with a more usual name is used instead"


def test_a_folder_that_only_sounds_like_validation_is_not_unlabelled(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    case = tree.labels["BraTS2021_00000"].parent
    tree.labels["BraTS2021_00000"].unlink()
    moved = tree.source / "my_validation_of_nets" / case.name
    moved.parent.mkdir()
    case.rename(moved)
    (problem,) = find("brats2021", tree.source).problems
    assert problem.path == moved and problem.text.startswith("label is missing")


def test_a_missing_channel_on_its_own_grid_can_be_left_out(tmp_path: Path) -> None:
    tree = build_tree("isles2022", tmp_path / "source")
    case = "sub-strokecase0002_ses-0001"
    tree.images[case][2].unlink()
    (problem,) = find("isles2022", tree.source).problems
    assert problem.text == (
        f"modality FLAIR is missing: no {case}_flair.nii.gz or .nii; leave it out with --channels DWI ADC"
    )
    assert not find("isles2022", tree.source, channels=("DWI", "ADC")).problems
    (problem,) = find("isles2022", tree.source, channels=("FLAIR",)).problems
    assert "--channels" not in problem.text


def remove_image(tree: Tree) -> None:
    tree.images["BraTS20_Training_001"][2].unlink()


def remove_label(tree: Tree) -> None:
    tree.labels["BraTS20_Training_002"].unlink()


def second_unknown_file(tree: Tree) -> None:
    label = tree.labels["BraTS20_Training_355"]
    shutil.copy(label, label.with_name("more.nii"))


def label_alone(tree: Tree) -> None:
    for image in tree.images["BraTS20_Training_001"]:
        image.unlink()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (remove_image, r"BraTS20_Training_001: .*: modality T2 is missing: no BraTS20_Training_001_t2.nii.gz or .nii"),
        (remove_label, r"BraTS20_Training_002: .*: label is missing: no BraTS20_Training_002_seg.nii.gz or .nii"),
        (
            second_unknown_file,
            r"BraTS20_Training_355: .*: label is missing: .*; it could be any of W39_.*, more.nii",
        ),
        (label_alone, r"BraTS20_Training_001: .*_seg.nii: label without any image of its case"),
    ],
)
def test_incomplete_cases_are_problems(spoil: Callable[[Tree], None], text: str, tmp_path: Path) -> None:
    tree = build_tree("brats2020", tmp_path / "source")
    spoil(tree)
    found = find("brats2020", tree.source)
    (problem,) = found.problems
    assert re.fullmatch(text, str(problem)), problem
    assert problem.case not in {case.name for case in found.cases}
    assert len(found.cases) == len(tree.images) - 1


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    tree = build_tree("isles2018", tmp_path / "source")
    tree.labels["case_1"].unlink()
    for image in tree.images["case_64"][1:3]:
        image.unlink()
    assert [str(problem).split(": ", 2)[::2] for problem in find("isles2018", tree.source).problems] == [
        ["case_1", "label is missing: no case_1/VSD.Brain.XX.O.OT.<number>.nii.gz or .nii"],
        ["case_64", "modality CBF is missing: no case_64/VSD.Brain.XX.O.CT_CBF.<number>.nii.gz or .nii"],
        ["case_64", "modality CBV is missing: no case_64/VSD.Brain.XX.O.CT_CBV.<number>.nii.gz or .nii"],
    ]


def test_the_innermost_folder_decides_whether_cases_are_unlabelled(tmp_path: Path) -> None:
    """A complete release below a folder that a user named Testing is not a test part."""
    tree = build_tree("isles2018", tmp_path / "Testing")
    check_all_found(find("isles2018", tree.source), tree)
