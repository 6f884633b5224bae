"""Every release is converted to nnU-Net's format and back, and invalid input is rejected."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conversions import OPTIONS, convert, voxels
from killed_processes import left_draft
from nnunet_folders import use_folders_below, write_fingerprint
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from trees import build_tree

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.dataset_conversion import convert as module
from factorizer_nnunet.dataset_conversion.challenge import to_challenge
from factorizer_nnunet.dataset_conversion.discover import list_files
from factorizer_nnunet.dataset_conversion.options import Options, parse_remap, read_patients
from factorizer_nnunet.dataset_conversion.releases import RELEASES
from factorizer_nnunet.dataset_conversion.survey import survey_release
from factorizer_nnunet.planning.dataset import plan_dataset

EVERY_RELEASE = pytest.mark.parametrize("key", RELEASES)


def digest(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refusal(key: str, source: Path, raw: Path, options: Options = OPTIONS) -> str:
    """Convert, expect an error, and check that nothing was written."""
    before = digest(source)
    with pytest.raises(UserError) as error:
        convert(key, source, raw, options)
    assert digest(source) == before
    assert not raw.exists() or not any(raw.iterdir())
    return str(error.value)


def volumes_mm3(path: Path, values: Mapping[int, int]) -> dict[int, float]:
    """Volume of each written value in a label whose values are mapped by ``values``."""
    image = nibabel.load(path)
    voxel = float(np.prod(image.header.get_zooms()[:3]))
    found, counts = np.unique(np.rint(image.get_fdata()).astype(int), return_counts=True)
    volumes: dict[int, float] = {}
    for value, count in zip(found, counts, strict=True):
        volumes[values[value]] = volumes.get(values[value], 0.0) + voxel * count
    return volumes


@pytest.fixture
def forked_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork nnU-Net's processes, so that they need not import torch."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: fork)


@pytest.mark.usefixtures("forked_pools")
@EVERY_RELEASE
def test_there_and_back(key: str, tmp_path: Path) -> None:
    tree = build_tree(key, tmp_path / "source")
    before = digest(tree.source)
    raw = tmp_path / "raw"
    folder = convert(key, tree.source, raw).folder
    assert digest(tree.source) == before
    assert [path.name for path in raw.iterdir()] == [folder.name]
    verify_dataset_integrity(str(folder), num_processes=1)

    report = json.loads((folder / "conversion_report.json").read_text())
    mapping = {int(old): new for old, new in report["label_map"].items()}
    assert set(report["cases"]) == set(tree.images)
    assert {path.name.removesuffix(".nii.gz") for path in (folder / "labelsTr").iterdir()} == set(tree.labels)
    for case, source in tree.labels.items():
        written = folder / "labelsTr" / f"{case}.nii.gz"
        assert voxels(written).dtype == np.uint8
        same = {value: value for value in mapping.values()}
        assert volumes_mm3(written, same) == pytest.approx(volumes_mm3(source, mapping), rel=1e-5)

    # With the labels as predictions, the submission equals the source labels.
    release = RELEASES[key]
    submission = to_challenge(release, folder / "labelsTr", tmp_path / "out", folder)
    assert submission.cases == len(tree.labels)
    back = {int(new): old for new, old in report["label_map_back"].items()}
    for case, source in tree.labels.items():
        name = release.submission.format_map({**report["cases"][case]["fields"], "case": case})
        returned, original = voxels(tmp_path / "out" / name), np.rint(nibabel.load(source).get_fdata())
        expected = np.vectorize(lambda value: back[mapping[int(value)]])(original)
        np.testing.assert_array_equal(returned, expected)
        if len(back) == len(mapping):  # no values were merged
            np.testing.assert_array_equal(returned, original)
        np.testing.assert_allclose(nibabel.load(tmp_path / "out" / name).affine, nibabel.load(source).affine, atol=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_pools")
@EVERY_RELEASE
def test_nnunet_plans_what_was_converted(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_folders_below(tmp_path, monkeypatch)
    tree = build_tree(key, tmp_path / "source")
    convert(key, tree.source, tmp_path / "nnUNet_raw")
    write_fingerprint(137)
    plans = json.loads(plan_dataset(137, preprocess=False, num_processes=1).read_text())
    assert plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"]


@pytest.mark.parametrize("key", ["brats2020", "brats2023-gli", "isles2018", "isles2024", "msd-brain"])
@pytest.mark.parametrize("spelled", [str.upper, str.lower])
def test_other_spelling_and_further_folders(key: str, spelled: object, tmp_path: Path) -> None:
    tree = build_tree(key, tmp_path / "source", spelled=spelled, nested=True)
    report = json.loads((convert(key, tree.source, tmp_path / "raw").folder / "conversion_report.json").read_text())
    assert {case.casefold() for case in report["cases"]} == {case.casefold() for case in tree.images}


def test_files_that_need_no_change_keep_their_bytes(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    folder = convert("brats2021", tree.source, tmp_path / "copied").folder
    linked = convert("brats2021", tree.source, tmp_path / "linked", replace(OPTIONS, link=True)).folder
    for case, images in tree.images.items():
        part = "imagesTr" if case in tree.labels else "imagesTs"
        for number, source in enumerate(images):
            name = f"{part}/{case}_{number:04d}.nii.gz"
            assert (folder / name).read_bytes() == source.read_bytes()
            assert not (folder / name).is_symlink()
            assert (linked / name).is_symlink() and (linked / name).resolve() == source.resolve()


def test_labels_that_need_no_change_keep_their_bytes(tmp_path: Path) -> None:
    tree = build_tree("brats2023-gli", tmp_path / "source")
    first, second = list(tree.labels.items())[:2]
    for (_, path), dtype in ((first, np.uint8), (second, np.int16)):
        label = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.rint(label.get_fdata()).astype(dtype), label.affine), path)
    labels = convert("brats2023-gli", tree.source, tmp_path / "raw").folder / "labelsTr"
    assert (labels / f"{first[0]}.nii.gz").read_bytes() == first[1].read_bytes()
    assert voxels(labels / f"{second[0]}.nii.gz").dtype == np.uint8
    linked = convert("brats2023-gli", tree.source, tmp_path / "linked", replace(OPTIONS, link=True)).folder / "labelsTr"
    assert (linked / f"{first[0]}.nii.gz").is_symlink() and not (linked / f"{second[0]}.nii.gz").is_symlink()


def test_channels_in_the_requested_order(tmp_path: Path) -> None:
    tree = build_tree("isles2022", tmp_path / "source")
    folder = convert("isles2022", tree.source, tmp_path / "raw", replace(OPTIONS, channels=["adc", "DWI"])).folder
    content = json.loads((folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "ADC", "1": "DWI"}
    assert {path.name[-11:] for path in (folder / "imagesTr").iterdir()} == {"0000.nii.gz", "0001.nii.gz"}
    assert "defines no grid: add one of DWI, ADC" in refusal(
        "isles2022", tree.source, tmp_path / "other", replace(OPTIONS, channels=["FLAIR"])
    )


def test_registration_is_reported_and_can_be_left_out(tmp_path: Path) -> None:
    tree = build_tree("isles2022", tmp_path / "source")
    registered = convert("isles2022", tree.source, tmp_path / "one").folder
    by_headers = convert("isles2022", tree.source, tmp_path / "two", replace(OPTIONS, register=False)).folder
    case = next(iter(tree.labels))
    images = [voxels(folder / "imagesTr" / f"{case}_0002.nii.gz") for folder in (registered, by_headers)]
    assert images[0].shape == images[1].shape == voxels(tree.labels[case]).shape
    assert not np.array_equal(*images)
    report = json.loads((registered / "conversion_report.json").read_text())
    (entry,) = report["cases"][case]["registrations"]
    assert entry["channel"] == "FLAIR" and entry["ok"] and entry["metric_after"] < entry["metric_before"]


def test_all_problems_are_listed_at_once_and_can_be_left_out(tmp_path: Path) -> None:
    tree = build_tree("brats2023-gli", tmp_path / "source")
    first, second = list(tree.labels)[:2]
    tree.images[first][0].unlink()
    packed = tree.images[second][2]
    packed.write_bytes(packed.read_bytes()[:-20])  # SimpleITK alone would read this without complaint
    label = nibabel.load(tree.labels[second])
    nibabel.save(nibabel.Nifti1Image(np.full(label.shape, 9, np.uint8), label.affine), tree.labels[second])
    text = refusal("brats2023-gli", tree.source, tmp_path / "raw")
    assert text.startswith("3 problems")
    for expected in (
        f"{first}: .*modality T1n is missing",
        f"{second}: .*t2w.nii.gz: .*(truncated|damaged)",
        f"{second}: .*seg.nii.gz: unexpected label values 9",
    ):
        assert re.search(expected, text), (expected, text)
    folder = convert("brats2023-gli", tree.source, tmp_path / "raw", replace(OPTIONS, skip_invalid=True)).folder
    report = json.loads((folder / "conversion_report.json").read_text())
    assert set(report["cases"]) == set(tree.images) - {first, second}
    assert {entry["case"] for entry in report["left_out"]} == {first, second}


def test_known_mistakes_in_labels_are_replaced_on_demand(tmp_path: Path) -> None:
    tree = build_tree("brats2025-met", tmp_path / "source")
    case, path = next(iter(tree.labels.items()))
    label = nibabel.load(path)
    values = np.rint(label.get_fdata()).astype(np.uint8)
    values[0, 0, 0] = 6
    nibabel.save(nibabel.Nifti1Image(values, label.affine), path)
    assert "BraTS 2025" in refusal("brats2025-met", tree.source, tmp_path / "raw")
    options = replace(OPTIONS, remap=parse_remap([f"{case}:6=0"]))
    folder = convert("brats2025-met", tree.source, tmp_path / "raw", options).folder
    assert voxels(folder / "labelsTr" / f"{case}.nii.gz")[0, 0, 0] == 0


def test_sources_without_the_release_are_an_error(tmp_path: Path) -> None:
    tree = build_tree("brats2024-gli", tmp_path / "source")
    text = refusal("brats2024-ssa", tree.source, tmp_path / "raw")
    assert "no case of BraTS 2024" in text


def test_folds_keep_listed_patients_together(tmp_path: Path) -> None:
    source = tmp_path / "source"
    example = build_tree("brats2021", tmp_path / "example")
    first = next(iter(example.labels.values())).parent
    for number in range(8):
        name = f"BraTS2021_{number:05d}"
        for path in first.glob("*.nii.gz"):
            target = source / name / path.name.replace(first.name, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\n" + "".join(f"BraTS2021_{n:05d},{'abcdeaaa'[n]}\n" for n in range(8)))
    options = replace(OPTIONS, patients=read_patients(table))
    folder = convert("brats2021", source, tmp_path / "raw", options).folder
    folds = json.loads((folder / "splits_final.json").read_text())
    together = {"BraTS2021_00000", "BraTS2021_00005", "BraTS2021_00006", "BraTS2021_00007"}
    assert len(folds) == 5 and sum(together <= set(fold["val"]) for fold in folds) == 1
    assert convert("brats2021", source, tmp_path / "again", options).num_folds == 5
    again = json.loads((tmp_path / "again" / folder.name / "splits_final.json").read_text())
    assert again == folds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("case,patient\nA,1\nA,2\n", "A belongs to 1 above and to 2"),
        ("a,b\n1,2\n", "columns"),
        ("case,patient\n", "no rows"),
    ],
)
def test_bad_lists_of_patients(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "patients.csv").write_text(text)
    with pytest.raises(UserError, match=expected):
        read_patients(tmp_path / "patients.csv")


@pytest.mark.parametrize("text", ["3", "a=b", "A:B:1=2", "=1", "1=-1"])
def test_bad_remaps(text: str) -> None:
    with pytest.raises(UserError, match="OLD=NEW"):
        parse_remap([text])


def test_several_processes_write_the_same(tmp_path: Path) -> None:
    tree = build_tree("brats2023-men", tmp_path / "source")
    one = convert("brats2023-men", tree.source, tmp_path / "one").folder
    two = convert("brats2023-men", tree.source, tmp_path / "two", replace(OPTIONS, jobs=2)).folder
    images = [{n: d for n, d in digest(f).items() if not n.startswith("conversion_report")} for f in (one, two)]
    assert images[0] == images[1]


def test_a_full_disk_and_a_killed_conversion_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    raw = tmp_path / "raw"

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_report", full_disk)
        assert "No space left" in refusal("brats2021", tree.source, raw)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        assert "GB are needed" in refusal("brats2021", tree.source, raw)
    leftover = left_draft(raw / "Dataset137_BraTS_2021")
    assert not (convert("brats2021", tree.source, raw).folder / "half").exists()
    assert not leftover.exists()


def test_existing_data_set_is_refused_and_untouched(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    taken = tmp_path / "raw" / "Dataset137_Other"
    taken.mkdir(parents=True)
    with pytest.raises(UserError, match="already has Dataset137_Other.*choose another ID"):
        convert("brats2021", tree.source, tmp_path / "raw")
    assert not any(taken.iterdir())


@pytest.mark.parametrize(("dataset_id", "name"), [(0, "X"), (1000, "X"), (5, "a b"), (5, "a/b"), (5, "..")])
def test_bad_targets_are_refused(tmp_path: Path, dataset_id: int, name: str) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(UserError, match="invalid data set (ID|name)"):
        convert("brats2021", tmp_path / "source", tmp_path / "raw", Options(dataset_id=dataset_id, name=name))


def test_one_process_at_a_time_writes_an_id(tmp_path: Path) -> None:
    tree, raw = build_tree("brats2021", tmp_path / "source"), tmp_path / "raw"
    raw.mkdir()
    with (
        file_lock(raw / ".Dataset137.lock", "busy"),
        pytest.raises(UserError, match="another process is converting to ID"),
    ):
        convert("brats2021", tree.source, raw)
    assert convert("brats2021", tree.source, raw).folder.is_dir()


def test_hints_distinguish_another_release_from_mistakes(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    first, second = tree.labels.values()
    for number, path in enumerate((first, second)):
        label = nibabel.load(path)
        values = np.full(label.shape, 3, np.uint8)
        nibabel.save(nibabel.Nifti1Image(values, label.affine), path)
        text = refusal("brats2021", tree.source, tmp_path / f"raw{number}")
        assert ("is it another release?" in text) == (number == 1)
        assert ("--remap CASE:OLD=NEW" in text) == (number == 0)


def test_options_for_unknown_cases_are_warned_about(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    case = next(iter(tree.labels))
    options = replace(OPTIONS, remap=parse_remap([f"{case.upper()}:1=2", "NOBODY:1=2"]), patients={"nobody": "A"})
    survey = survey_release(RELEASES["brats2021"], list_files([tree.source]), options)
    assert any("--remap names 1 cases that do not exist: nobody" in warning for warning in survey.warnings)
    assert any("--patients names 1 cases that do not exist: nobody" in warning for warning in survey.warnings)
    (examined,) = [e for e in survey.kept if e.case.name == case]
    assert 1 not in examined.label.counts


def test_a_list_of_patients_of_other_cases_is_refused(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    case, *_ = tree.labels
    options = replace(OPTIONS, patients={f"{case}_t1.nii.gz".casefold(): "A"})
    text = refusal("brats2021", tree.source, tmp_path / "raw", options)
    assert (
        f"--patients has none of the 2 labelled cases: it names {case.casefold()}_t1.nii.gz, the cases are {case}"
        in text
    )


def test_unlabelled_cases_alone_can_be_converted(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    for path in tree.labels.values():
        shutil.rmtree(path.parent)
    folder = convert("brats2021", tree.source, tmp_path / "raw").folder
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 0
    assert len(list((folder / "imagesTs").iterdir())) == 4 * len(tree.unlabelled)
