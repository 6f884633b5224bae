"""The page: complete, escaped, self-contained and labelled; scores are computed once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from killed_processes import left_draft
from results_example import DATASET_JSON, SHAPE, Study, add_model, write_predictions, write_study, write_volume

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.report import Sources, scoring, write_report
from factorizer_nnunet.report.gallery import choose_cases
from factorizer_nnunet.report.own_pages import page_file, write_page


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = write_study(tmp_path_factory.mktemp("study"))
    add_model(study, "nnUNetTrainer", 0.4)
    add_model(study, "nnUNetTrainerFactorizer", 0.2)
    return study


@pytest.fixture(scope="module")
def page(study: Study) -> str:
    return report(study, study.root / "report.html", names=["<U-Net>", "ours"])


def models(study: Study) -> list[Path]:
    return [study.model("nnUNetTrainer"), study.model("nnUNetTrainerFactorizer")]


def report(study: Study, target: Path, **options: object) -> str:
    folders = options.pop("folders", models(study))
    write_report(folders, target, sources=Sources(environment=study.environment), **options)
    return target.read_text(encoding="utf-8")


def test_the_page_has_every_section_and_loads_nothing(page: str) -> None:
    titles = re.findall(r"<h2 [^>]*>([^<]+)</h2>", page)
    assert titles == [
        *("Overview", "Models", "Training", "Scores", "Every case", "Comparison", "Volumes", "Lesion size", "Gallery"),
        *("Labels to review", "When to trust it", "All cases", "Methods"),
    ]
    assert "default-src 'none'" in page
    addresses = re.findall(r'<[^>]* (?:src|href)="([^"]*)"', page)
    assert addresses and all(address.startswith(("data:image/jpeg;base64,", "#")) for address in addresses)
    assert "<U-Net>" not in page and "&lt;U-Net&gt;" in page


def test_every_image_and_figure_has_a_description(page: str) -> None:
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) == 10 * 3 * 4  # all cases, planes, and image, reference and two predictions
    assert all(re.search(r'alt="blob_\d+, \w+, [^"]+"', image) for image in images)
    assert all(re.search(r'aria-label="[^"]{20,}"', svg) for svg in re.findall(r"<svg [^>]*>", page))


def test_numbers_on_the_page_are_those_of_the_scores(study: Study, page: str) -> None:
    rows = (study.root / "report_scores" / "1_ours" / "scores" / "scores.csv").read_text().splitlines()
    values = [float(row.split(",")[4]) for row in rows if row.split(",")[1:3] == ["front", "dice"]]
    assert len(values) == 10
    assert f"<b>{np.mean(values):.3f}</b>" in page  # bold: the better of both
    assert all(f'data-t="ours, front: {value:.3f}"' in page for value in values)
    assert "10 of 10" in page


def test_result_folders_are_left_alone_and_scores_are_computed_once(
    study: Study, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (study.root / "nnUNet_results").rglob("*")}
    computed: list[Path] = []
    evaluate = scoring.evaluate_pairs
    monkeypatch.setattr(
        scoring, "evaluate_pairs", lambda *args, **options: computed.append(args) or evaluate(*args, **options)
    )
    kept = tmp_path / "scores"
    options = {"scores_folder": kept, "folders": models(study)[:1]}
    first = report(study, tmp_path / "a.html", **options)
    assert len(computed) == 1
    assert report(study, tmp_path / "b.html", **options) == first
    assert len(computed) == 1
    assert {path.name for path in kept.glob("*/*")} == {"scores", "inputs.json"}
    changed = study.model("nnUNetTrainer") / "fold_0" / "validation" / "blob_000.nii.gz"
    content, stamp = changed.read_bytes(), changed.stat().st_mtime_ns
    write_volume(changed, np.zeros(SHAPE, np.uint8))
    assert report(study, tmp_path / "c.html", **options) != first
    assert len(computed) == 2
    changed.write_bytes(content)
    os.utime(changed, ns=(stamp, stamp))
    assert {path: path.stat().st_mtime_ns for path in before if path.is_file()} == {
        path: stamp for path, stamp in before.items() if path.is_file()
    }


def test_a_folder_of_other_things_is_not_taken_for_scores(study: Study, tmp_path: Path) -> None:
    (tmp_path / "0_nnUNetTrainer").mkdir()
    (tmp_path / "0_nnUNetTrainer" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not from a report: move it away or choose another --scores"):
        report(study, tmp_path / "a.html", scores_folder=tmp_path, folders=models(study)[:1], names=["nnUNetTrainer"])
    assert (tmp_path / "0_nnUNetTrainer" / "thesis.txt").read_text() == "mine"
    assert not (tmp_path / "a.html").exists()


def test_files_that_cannot_be_scored_are_named_by_their_own_paths(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_predictions(study, out, study.cases[:4], 0.1)
    (out / "dataset.json").write_text(json.dumps(DATASET_JSON))
    (out / "blob_000.nii.gz").write_bytes(b"broken")
    write_volume(out / "blob_001.nii.gz", np.zeros((4, 4, 4), np.uint8))
    write_volume(out / "blob_002.nii.gz", np.full(SHAPE, 7, np.uint8))
    with pytest.raises(UserError) as error:
        report(study, tmp_path / "a.html", folders=[out])
    for number in range(3):
        assert f"{out}/blob_00{number}.nii.gz" in str(error.value)
    assert "report_" not in str(error.value).replace(str(out), "")
    assert not (tmp_path / "a.html").exists()


def test_missing_cases_are_reported_on_the_page(study: Study, tmp_path: Path) -> None:
    write_predictions(study, tmp_path / "out", study.cases[:3], 0.1)
    (tmp_path / "out" / "dataset.json").write_text(json.dumps(DATASET_JSON))
    folders = [study.model("nnUNetTrainer"), tmp_path / "out"]
    with pytest.raises(UserError, match="has no blob_003, which"):
        report(study, tmp_path / "a.html", folders=folders)
    text = report(study, tmp_path / "a.html", folders=folders, partial=True)
    assert "Incomplete." in text and "3 of 10 cases that all results have" in text


def test_without_images_the_outlines_are_on_black(study: Study, tmp_path: Path) -> None:
    sources = Sources(references=study.raw / "labelsTr", environment={})
    (study.raw / "imagesTr").rename(study.raw / "hidden")
    try:
        for channel in (1, 0):
            write_report(models(study)[:1], tmp_path / "a.html", sources=sources, channel=channel)
    finally:
        (study.raw / "hidden").rename(study.raw / "imagesTr")
    assert "Some images were not found" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_an_invalid_channel_is_refused_before_scoring(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="invalid channel 1: the images have channels 0 to 0"):
        report(study, tmp_path / "a.html", channel=1)
    with pytest.raises(UserError, match="gone does not exist: create the folder to write a.html to"):
        report(study, tmp_path / "gone" / "a.html")
    with pytest.raises(UserError, match="is a folder: give a file"):
        report(study, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_cases_are_chosen_by_eye() -> None:
    names = [f"c{number}" for number in range(9)]
    chosen = choose_cases(np.array([[0.5, 0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6]]), names)
    assert list(chosen.items()) == [
        *(("c1", "worst"), ("c3", "worst"), ("c5", "worst")),
        *(("c7", "median"), ("c0", "median"), ("c8", "median")),
        *(("c2", "best"), ("c4", "best"), ("c6", "best")),
    ]
    assert choose_cases(np.array([[np.nan, 0.5]]), ["a", "b"]) == choose_cases(np.array([[0.5]]), ["b"])
    assert choose_cases(np.array([[np.nan]]), ["a"]) == {}
    dice = np.stack([np.linspace(0, 1, 20), np.linspace(0, 1, 20) + 0.01])
    dice[1, [0, 5, 12]] += 0.02, 0.2, 0.1  # 0 is among the worst already
    differing = choose_cases(dice, [*map(str, range(20))])
    assert [case for case, why in differing.items() if why == "models differ most"][:2] == ["5", "12"]


def test_the_command_writes_the_page_and_refuses_with_status_2(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "factorizer_nnunet", "report", "-o", str(tmp_path / "r.html")]
    environment = {**os.environ, **study.environment}
    done = subprocess.run([*command, *map(str, models(study))], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == f"{tmp_path / 'r.html'}\n" and (tmp_path / "r.html").stat().st_size > 50_000
    assert cli.main(["report", "-o", str(tmp_path / "s.html"), str(tmp_path)]) == 2
    assert "not a folder of nnU-Net results" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"{}", b"<html>mine</html>", b"\x00\xff"])
def test_only_pages_of_the_report_are_replaced(study: Study, tmp_path: Path, content: bytes) -> None:
    target = tmp_path / "plans.json"
    target.write_bytes(content)
    with pytest.raises(UserError, match="plans.json is not a page of this command and is not replaced"):
        report(study, target)
    assert target.read_bytes() == content and list(tmp_path.iterdir()) == [target]


def test_an_edited_page_is_kept_and_an_unchanged_one_replaced(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    assert write_page(page_file(target), "<h1>Overview</h1>") is None
    written = target.read_text(encoding="utf-8")
    noted, appended = written.replace("Overview", "My notes"), f"{written}<p>notes</p>\n"
    earlier = '<div id="kept" role="status"></div><script type="application/json" id="cases">'
    for number, existing in enumerate((written, noted, appended, earlier)):
        target.write_text(existing, encoding="utf-8")
        kept = write_page(page_file(target), "<h1>Overview</h1>")
        assert target.read_text(encoding="utf-8") == written
        if number == 0:
            assert kept is None
        else:
            assert kept == tmp_path / f"page.html.edited-{number}" and kept.read_text(encoding="utf-8") == existing


def test_a_link_stays_and_the_command_names_the_edited_page_that_it_leads_to(
    study: Study, page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in study.environment.items():
        monkeypatch.setenv(name, value)
    target, link = tmp_path / "elsewhere" / "page.html", tmp_path / "report.html"
    target.parent.mkdir()
    target.write_text(page.replace("Overview", "My notes"), encoding="utf-8")
    link.symlink_to("elsewhere/page.html")
    command = ["report", *map(str, models(study)), "--names", "<U-Net>", "ours", "-o", str(link)]
    assert cli.main([*command, "--scores", str(study.root / "report_scores")]) == 0
    assert f"kept as {target}.edited-1" in capsys.readouterr().err
    assert link.is_symlink() and target.read_text(encoding="utf-8") == page
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(UserError, match="is not a page of this command and is not replaced"):
        page_file(link)


def test_a_report_killed_while_it_saved_scores_starts_again(study: Study, tmp_path: Path) -> None:
    scores = tmp_path / "report_scores"
    for target in (scores / "0_nnUNetTrainer" / "scores", scores / "1_nnUNetTrainerFactorizer" / "inputs.json"):
        left_draft(target)
    assert report(study, tmp_path / "report.html").endswith(" -->\n")
    assert not list(tmp_path.rglob("*.partial"))
    mine = scores / "0_nnUNetTrainer" / "scores" / "notes.txt"
    mine.write_text("mine")
    with pytest.raises(UserError, match="is not from a report: move it away"):
        report(study, tmp_path / "report.html", scheme="isles2022")
    assert mine.read_text() == "mine"
