"""What every page of this package has, in a real browser: the viewer, readable at any width, and no errors."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from browser import CHROMIUM, Browser
from explained import explanation
from page_scripts import CLOSE, LEVELS, OUTSIDE, READY, UNEXPLAINED, WIDE, opened
from results_example import DATASET_JSON, SPACING_MM, add_model, random_scores, write_study, write_volume

from factorizer_nnunet import cli
from factorizer_nnunet.explain.page import write_page
from factorizer_nnunet.explain.shown import Shown
from factorizer_nnunet.report import Sources, write

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def _report(folder: Path) -> Path:
    """Two models on nine cases of two channels, of which eight can be opened."""
    study = write_study(folder / "study", 9)
    models = [add_model(study, name, wear) for name, wear in (("nnUNetTrainer", 0.5), ("nnUNetTrainerB", 0.3))]
    described = {**DATASET_JSON, "channel_names": {"0": "T2", "1": "T1 </script>"}}
    for place in (study.raw, *models):
        (place / "dataset.json").write_text(json.dumps(described))
    for case in study.cases:
        image = nibabel.load(study.raw / "imagesTr" / f"{case}_0000.nii.gz").get_fdata()
        write_volume(study.raw / "imagesTr" / f"{case}_0001.nii.gz", 500 - image, SPACING_MM)
    page = folder / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "score", lambda result, *_: random_scores(result, len(result.title)))
        write.write_report(models, page, sources=Sources(environment=study.environment), viewer_cases=8)
    return page


def _conversion(folder: Path) -> Path:
    """Nine cases of BraTS 2021 and one without a label; the first is unlike the others."""
    draw, affine = np.random.default_rng(0), np.diag([-1.0, -1.0, 1.0, 1.0])
    for number in range(10):
        size = (40, 30, 20) if number else (40, 30, 36)
        distance = np.linalg.norm((np.indices(size).T - np.array(size) / 2) / size, axis=-1).T
        label = np.where(distance < 0.1, 4, np.where(distance < 0.15, 1, np.where(distance < 0.25, 2, 0)))
        where = folder / "source" / ("training" if number < 9 else "validation") / f"BraTS2021_{number:05d}"
        where.mkdir(parents=True)
        for kind in ("t1", "t1ce", "t2", "flair", *(["seg"] if number < 9 else [])):
            image = (100 * (distance < 0.45) + 40 * (label > 0) + draw.normal(0, 9, size)).astype(np.int16)
            values = label.astype(np.uint8) if kind == "seg" else np.where(distance < 0.45, image, 0)
            nibabel.save(nibabel.Nifti1Image(values, affine), where / f"{where.name}_{kind}.nii.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", str(folder / "raw"))
        (folder / "raw").mkdir()
        assert cli.main(["convert", "brats2021", str(folder / "source"), "-d", "7", "-np", "1"]) == 0
    return folder / "raw" / "Dataset007_BraTS_2021" / "conversion_report.html"


def _explained(folder: Path) -> Path:
    """A case of two channels with two components of two classes."""
    made = explanation(folder, (16, 20, 24))
    made = replace(made, image=np.concatenate([made.image, -made.image]))
    write_page(folder / "case.html", made, 2, Shown.of(made, ["T1", "T1 inverted"], 0), "Factorizer, fold 0")
    return folder / "case.html"


PAGES: dict[str, Callable[[Path], Path]] = {"report": _report, "conversion": _conversion, "explain": _explained}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module", params=PAGES)
def browser(started: Browser, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """With each of the pages."""
    started.resize(1400, "light")
    started.open(PAGES[request.param](tmp_path_factory.mktemp(request.param)))
    return started


@pytest.mark.parametrize("selector", ["main img", "tr[data-view] td:nth-child(2)"])
def test_a_click_on_a_picture_or_a_row_opens_the_case(browser: Browser, selector: str) -> None:
    labels, captions = opened(browser, selector)
    for label, plane in zip(labels, ("axial", "coronal", "sagittal"), strict=True):
        assert re.search(rf": {plane}, slice \d+ of \d+, [RLAPSI] [\d.]+ mm", label)
    assert all(re.search(r"level [-\d.]+, width [\d.]+$", caption) for caption in captions)


def test_a_step_goes_to_the_next_slice_of_the_file(browser: Browser) -> None:
    labels, _ = opened(browser, "main img")
    number, count = map(int, re.search(r"slice (\d+) of (\d+)", labels[0]).groups())
    browser.evaluate("document.querySelector('#viewer canvas').focus()")
    browser.key("ArrowUp")
    (shown,) = re.findall(r"slice (\d+)", browser.evaluate(READY)[2][0])
    assert abs(int(shown) - number) == 1 and 1 <= number <= count


def test_all_channels_and_windows_can_be_chosen(browser: Browser) -> None:
    opened(browser, "main img")
    names = browser.evaluate('[...document.getElementById("viewer-channel").options].map(one => one.text)')
    shown = set()
    for _ in names:
        browser.key("c")
        shown.add(browser.evaluate('document.querySelector("#viewer figcaption").textContent.split(", axial")[0]'))
    assert shown == {*names} and len(names) > 1
    before = browser.evaluate(READY)[3]
    browser.evaluate(
        "(one => { one.selectedIndex = 1; one.dispatchEvent(new Event('change')); })"
        "(document.getElementById('viewer-window'))"
    )
    assert browser.evaluate(READY)[3] != before


def test_pictures_say_plane_and_position(browser: Browser) -> None:
    texts = browser.evaluate("[...document.images].map(image => image.alt)")
    assert texts and all(re.search(r"(axial|coronal|sagittal), [RLAPSI] [\d.]+ mm", text) for text in texts)


def test_headings_are_in_order_and_the_title_says_what_and_when(browser: Browser) -> None:
    levels = browser.evaluate(LEVELS)
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in zip(levels, levels[1:], strict=False))
    title, heading, text = browser.evaluate("[document.title, document.querySelector('h1').textContent, "
                                            "document.querySelector('header').textContent]")  # fmt: skip
    (date,) = set(re.findall(r"\d{4}-\d\d-\d\d", title))
    assert title.startswith(f"{heading}: ") and date in text
    assert re.search(r"report of|conversion of|components of", title)


def test_undefined_values_have_a_reason(browser: Browser) -> None:
    assert browser.evaluate(UNEXPLAINED) == []
    assert browser.evaluate("document.querySelectorAll('td.number:empty').length") == 0


def test_a_table_can_be_saved(browser: Browser, tmp_path: Path) -> None:
    browser.save_to(tmp_path)
    browser.evaluate('document.querySelector("button[data-csv]").click()')
    browser.wait(lambda: [*tmp_path.glob("*.csv")])
    (file,) = tmp_path.glob("*.csv")
    with file.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.reader(stream))
    shown = """(table => [[...table.tHead.rows[0].cells].map(one => one.textContent), table.tBodies[0].rows.length])
      (document.querySelector("button[data-csv]").closest("section").querySelector("table.sortable"))"""
    heads, count = browser.evaluate(shown)
    assert rows[0] == heads and len(rows) == count + 1 and {len(row) for row in rows} == {len(heads)}
    values = [cell for row in rows[1:] for cell in row]
    assert "–" not in values and any(re.fullmatch(r"-?\d+\.\d+", value) for value in values)


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_scrolls_sideways(browser: Browser, width: int, scheme: str) -> None:
    browser.evaluate(CLOSE)
    browser.resize(width, scheme)
    assert browser.evaluate(WIDE) <= width, browser.evaluate(OUTSIDE)
    opened(browser, "main img")
    browser.resize(width, scheme)
    assert browser.evaluate(WIDE) <= width, browser.evaluate(OUTSIDE)


def test_there_were_no_errors(browser: Browser) -> None:
    """Last of each page, so that it sees the events of all other tests."""
    assert browser.problems == []
